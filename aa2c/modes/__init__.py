"""What differs between the modes, and nothing else: a package each, declared where it begins.

A mode is added by a module like these that declares a `Mode` and registers it, and a name in the
import below. The halves stand apart, in `worker` and `updater`, and are imported where they run.
"""

from aa2c.modes import grad, model, traj

__all__ = ["grad", "model", "traj"]
