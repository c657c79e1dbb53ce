"""The options of the engine: which one runs the workers, and what the one for several machines needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from aa2c.config.option import option
from aa2c.config.values import flag
from aa2c.errors import ConfigError

if TYPE_CHECKING:
    from aa2c.config.config import Config

MOST_LOCAL_WORKERS = 256  # every child inherits a descriptor for each


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Several machines."""

    engine: Literal["local", "ray"] = option(
        "local",
        "local: all processes on this machine; ray: workers on the nodes of a Ray cluster, updater and "
        "dashboard here (modes grad and traj)",
    )
    address: str = option(
        "",
        "HOST:PORT of a running Ray cluster; empty: a Ray of its own on this machine, for trying",
    )
    workers_per_host: int = option(
        8, "workers in each host process; one such process per node at best", unit="workers",
        minimum=1, maximum=256,
    )  # fmt: skip
    ray_insecure: bool = option(
        False, "connect to a Ray cluster that asks for no token, where whoever reaches it runs code"
    )


_NEEDS_RAY = ("address", "workers_per_host", "ray_insecure")


def check_engine(config: Config) -> None:
    """Refuse what an engine cannot do, and options that it does not use. Raises `ConfigError`."""
    if config.engine == "local":
        for name in _NEEDS_RAY:
            if getattr(config, name) != config.__dataclass_fields__[name].default:
                raise ConfigError(
                    f"{flag(name)} needs --engine ray: --engine local does not use it."
                )
        if config.workers > MOST_LOCAL_WORKERS:
            raise ConfigError(
                f"--workers {config.workers} must be at most {MOST_LOCAL_WORKERS} on one machine: "
                "see --engine ray."
            )
        return
    if config.mode_facts.workers_step:
        raise ConfigError(
            f"--mode {config.mode} needs --engine local: its workers step one network in shared "
            "memory, which machines do not share."
        )
    if config.deterministic:
        raise ConfigError(
            "--deterministic needs --engine local: lock-step over a network would wait for the "
            "slowest machine at each record."
        )
    if config.ray_insecure and not config.address:
        raise ConfigError("--ray-insecure needs --address: a Ray of its own always has a token.")
