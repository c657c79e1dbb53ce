"""aa2c trains actor-critic agents asynchronously, with many processes on one host.

`Orchestrator` and `Config` embed a run in an asyncio program, `train` runs one to completion, and
`load_policy` loads a trained policy. Names are imported on first use: `import aa2c` is instant, and
only `load_policy` imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aa2c import modes as _modes  # noqa: F401  # each declares itself: a Config knows them all
from aa2c.version import __version__

if TYPE_CHECKING:
    from aa2c.checkpoints.trained import load_policy
    from aa2c.config.config import Config
    from aa2c.config.toml import load_config
    from aa2c.errors import Aa2cError, ConfigError, RunFailed, StartError
    from aa2c.orchestrator import Orchestrator, train

__all__ = [
    "Aa2cError",
    "Config",
    "ConfigError",
    "Orchestrator",
    "RunFailed",
    "StartError",
    "__version__",
    "load_config",
    "load_policy",
    "train",
]

_HOMES = {
    "Aa2cError": "errors",
    "Config": "config.config",
    "ConfigError": "errors",
    "Orchestrator": "orchestrator",
    "RunFailed": "errors",
    "StartError": "errors",
    "load_config": "config.toml",
    "load_policy": "checkpoints.trained",
    "train": "orchestrator",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aa2c' has no attribute {name!r}")
    return getattr(import_module(f"aa2c.{_HOMES[name]}"), name)
