"""What a run needs on request only, packages and a token: looked for before anything is started."""

from __future__ import annotations

import importlib.util
import os

from aa2c.config.config import Config
from aa2c.errors import ConfigError
from aa2c.run.trackers import PACKAGES


def check_requirements(config: Config) -> None:
    """Raises `ConfigError` if a tracker's or the engine's package is missing, or a cluster's token."""
    needed: list[tuple[str, str, str]] = [
        (f"--track {name}", PACKAGES[name], name) for name in config.track
    ]
    if config.engine == "ray":
        needed.append(("--engine ray", "ray", "ray"))
    for option, package, extra in needed:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"{option} needs the package {package}: pip install 'aa2c[{extra}]'.")
    if config.address and not config.ray_insecure and os.environ.get("RAY_AUTH_MODE") != "token":
        raise ConfigError(
            f"--address {config.address} needs the cluster's token: set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH here and on all nodes, or give --ray-insecure on a network of your own."
        )
