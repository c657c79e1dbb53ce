"""aa2c trains actor-critic agents asynchronously, with many processes on one machine or several.

`Orchestrator` and `Config` embed a run in an asyncio program, `train` runs one to completion, `recipe`
is a tuned configuration, and `load_policy` and `load_metrics` load what a run has left behind. Names are imported on first use: `import aa2c` is instant, and
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
    from aa2c.envs.recipes import recipe
    from aa2c.errors import Aa2cError, ConfigError, NoRecipeWarning, RunFailed, StartError
    from aa2c.orchestrator import Callback, Orchestrator
    from aa2c.report.metrics import load_metrics
    from aa2c.training import train

__all__ = [
    "Aa2cError",
    "Callback",
    "Config",
    "ConfigError",
    "NoRecipeWarning",
    "Orchestrator",
    "RunFailed",
    "StartError",
    "__version__",
    "load_config",
    "load_metrics",
    "load_policy",
    "recipe",
    "train",
]

_HOMES = {
    "Aa2cError": "errors",
    "Callback": "orchestrator",
    "Config": "config.config",
    "ConfigError": "errors",
    "NoRecipeWarning": "errors",
    "Orchestrator": "orchestrator",
    "RunFailed": "errors",
    "StartError": "errors",
    "load_config": "config.toml",
    "load_metrics": "report.metrics",
    "load_policy": "checkpoints.trained",
    "recipe": "envs.recipes",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'aa2c' has no attribute {name!r}")
    return getattr(import_module(f"aa2c.{_HOMES[name]}"), name)
