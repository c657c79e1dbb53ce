"""Packages that a run needs on request only: they are looked for before anything is started."""

from __future__ import annotations

import importlib.util

from aa2c.config.config import Config
from aa2c.errors import ConfigError

_OF_TRACKERS = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def require_packages(config: Config) -> None:
    """Raises `ConfigError` if a tracker's or the engine's package is not installed."""
    needed: list[tuple[str, str, str]] = [
        (f"--track {name}", _OF_TRACKERS[name], name) for name in config.track
    ]
    if config.engine == "ray":
        needed.append(("--engine ray", "ray", "ray"))
    for option, package, extra in needed:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{option} needs the package {package}: pip install 'aa2c[{extra}]'.")
