"""The configuration of a run: all options together, and what may not be combined.

Imported by every process; imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_type_hints

from aa2c.config.engine_options import EngineOptions, check_engine
from aa2c.config.factory import Factory, is_factory
from aa2c.config.kwargs import Kwargs
from aa2c.config.learning_options import NETWORKS, LearningOptions, TrajOptions
from aa2c.config.modes import FACTS, ModeFacts, require_used
from aa2c.config.options import (
    EnvOptions,
    EvaluationOptions,
    HttpOptions,
    RunOptions,
    SupervisionOptions,
    TrackingOptions,
    UpdaterOptions,
    WorkerOptions,
)
from aa2c.config.peers import meant
from aa2c.config.values import MOST_ITEMS, broken_bound, converted, nearest, shown
from aa2c.config.values import flag as flag
from aa2c.errors import ConfigError

MOST_NAME_BYTES = 200  # file systems take 255, and a checkpoint's or a temporary name may be longer
ENVS = 8  # of a worker with --num-envs 0
SHARED_ENVS = 24  # of all workers, at most, but for one of each
LEAST_OBS_SCALE = 1e-6  # a smaller divisor makes infinities of large float32 observations


@dataclass(frozen=True, kw_only=True)
class Config(
    HttpOptions,
    TrackingOptions,
    EngineOptions,
    SupervisionOptions,
    EvaluationOptions,
    UpdaterOptions,
    TrajOptions,
    LearningOptions,
    WorkerOptions,
    EnvOptions,
    RunOptions,
):
    """The configuration of a run. Raises `ConfigError` for what cannot be.

    Values are converted as the command line's are: `1e6`, `"1e-4"`, a `Path`, NumPy's numbers. `env`,
    `network`, `vector` and each `wrapper` may also be a class or a function that makes one.
    """

    if TYPE_CHECKING:  # what is kept of the options that may be given in several ways: see `_KEPT`

        @property  # type: ignore[misc]
        def env(self) -> str: ...

        @property  # type: ignore[misc]
        def env_kwargs(self) -> Kwargs: ...

        @property  # type: ignore[misc]
        def wrapper(self) -> tuple[str, ...]: ...

        @property  # type: ignore[misc]
        def vector(self) -> str: ...

        @property  # type: ignore[misc]
        def network(self) -> str: ...

    def __new__(cls, **options: Any) -> Self:
        """Refuse an unknown option before `__init__` does with a TypeError."""
        for name in options:
            if name not in cls.__dataclass_fields__:
                near = meant(name, cls.__dataclass_fields__) or "."
                raise ConfigError(f"there is no option {shown(name)}{near}")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for item in fields(self):
            try:
                value = _converted(item.name, getattr(self, item.name))
            except ValueError as error:
                raise ConfigError(f"{flag(item.name)} {error}") from None
            object.__setattr__(self, item.name, value)
            if broken := broken_bound(item, value):
                raise ConfigError(f"{flag(item.name)} {broken}")
        if not self.num_envs:
            object.__setattr__(self, "num_envs", min(ENVS, max(1, SHARED_ENVS // self.workers)))
        self._check_each()
        self._check_contradictions()

    def _check_each(self) -> None:
        if not self.env:
            raise ConfigError("--env is empty: give a Gymnasium id, such as CartPole-v1.")
        if not self.host:
            raise ConfigError("--host is empty: give an address, such as 127.0.0.1.")
        is_own = self.network.count(":") == 1 or is_factory(self.network)
        if self.network not in NETWORKS and not is_own:
            raise ConfigError(
                f"--network {self.network} does not exist: give one of {', '.join(NETWORKS)}, or a "
                "function of your own as package.module:function."
            )
        if not self.hidden_sizes:
            raise ConfigError("--hidden-sizes is empty: give at least one size.")
        if Path(self.name).name != self.name or self.name == "..":
            raise ConfigError(f"--name {self.name!r} must be a name, not a path: see --runs-dir.")
        if len(self.name.encode()) > MOST_NAME_BYTES:
            raise ConfigError(f"--name is longer than {MOST_NAME_BYTES} bytes.")
        if 0 < self.obs_scale < LEAST_OBS_SCALE:
            raise ConfigError(
                f"--obs-scale {self.obs_scale} must be 0 or at least {LEAST_OBS_SCALE}."
            )

    def _check_contradictions(self) -> None:
        self._check_mode()
        if len(self.ent_coef) != 1 and len(self.ent_coef) < self.workers:
            raise ConfigError(
                f"--ent-coef has {len(self.ent_coef)} values for {self.workers} workers: "
                "give one, or at least as many as --workers."
            )
        if self.min_workers > self.workers:
            raise ConfigError(
                f"--min-workers {self.min_workers} must be at most --workers {self.workers}."
            )
        for name in ("grad_sync_steps", "target_update_steps", "batch_steps"):
            if getattr(self, name) % self.num_steps:
                raise ConfigError(
                    f"{flag(name)} {getattr(self, name)} must be a multiple of "
                    f"--num-steps {self.num_steps}."
                )
        if self.sequence_length and self.num_steps % self.sequence_length:
            raise ConfigError(
                f"--sequence-length {self.sequence_length} must divide --num-steps {self.num_steps}."
            )
        self._check_environments()
        if self.deterministic and self.update_order == "hogwild":
            raise ConfigError(
                "--update-order hogwild lets chance decide what is lost: not with --deterministic."
            )
        if self.deterministic and self.keep_best:
            raise ConfigError(
                "--keep-best goes by returns, which arrive whenever they do: not with --deterministic."
            )
        self.mode_facts.check(self)

    def _check_environments(self) -> None:
        for name in ("wrapper", "vector"):
            for code in filter(None, codes(getattr(self, name))):
                if not (is_factory(code) or _IS_CODE.fullmatch(code)):
                    raise ConfigError(
                        f"{flag(name)} {shown(code)} is no package.module:name, such as "
                        f"{_EXAMPLES[name]}."
                    )
        if self.vector:
            for name in ("env", "wrapper", "vectorization"):
                value, default = getattr(self, name), self.__dataclass_fields__[name].default
                if value != default:
                    raise ConfigError(
                        f"--vector {self.vector} makes the environments itself: it excludes "
                        f"{flag(name)} {' '.join(codes(value))}."
                    )
        if self.deterministic and self.vectorization == "async":
            raise ConfigError("--deterministic needs --vectorization sync.")

    def _check_mode(self) -> None:
        """Refuse what this mode does without: nothing is ignored silently."""
        if self.mode not in FACTS:
            near = nearest(self.mode, FACTS) or "."
            raise ConfigError(f"--mode {shown(self.mode)} is not one of {', '.join(FACTS)}{near}")
        for item in fields(self):
            if getattr(self, item.name) != item.default:
                require_used(item.name, self.mode)
        orders = self.mode_facts.update_orders
        if self.update_order not in orders:
            raise ConfigError(
                f"--update-order {self.update_order} is not for --mode {self.mode}: give "
                f"{' or '.join(orders)}."
            )
        if len(self.ent_coef) > 1 and self.mode_facts.loss_in == "updater":
            raise ConfigError(
                f"--ent-coef takes one value in --mode {self.mode}, where the updater has the loss."
            )
        check_engine(self)

    @property
    def mode_facts(self) -> ModeFacts:
        """What this run's mode says of itself."""
        return FACTS[self.mode]

    def uses(self, option: str) -> bool:
        """Whether this run's mode uses an option: most are every mode's."""
        own = option in self.mode_facts.uses
        return own or not any(option in facts.uses for facts in FACTS.values())

    @property
    def least_workers(self) -> int:
        """Fewer could not make one update, or keep in step."""
        return self.workers if self.deterministic else self.mode_facts.least_workers(self)

    @property
    def env_name(self) -> str:
        """What makes the environments: of --vector, or of --env."""
        return self.vector or self.env

    @property
    def env_flag(self) -> str:
        """The flag that chooses the environments, and its value."""
        return f"--vector {self.vector}" if self.vector else f"--env {self.env}"

    @property
    def env_flags(self) -> str:
        """All flags that say how the environments are made."""
        kwargs = [f"--env-kwargs {self.env_kwargs}"] if self.env_kwargs else []
        return " ".join([self.env_flag, *kwargs, *(f"--wrapper {name}" for name in self.wrapper)])

    def worker_ent_coef(self, worker: int) -> float:
        """The entropy weight of one worker."""
        return self.ent_coef[worker % len(self.ent_coef)]


def _converted(name: str, value: Any) -> Any:
    """An option's value with its type. Raises `ValueError`."""
    if name not in IMPORTING_OPTIONS:
        return converted(value, option_types()[name])
    if name != "wrapper":
        return _code(value)
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray)
    items = list(value) if several else [value]
    if len(items) > MOST_ITEMS:
        raise ValueError(f"are more than {MOST_ITEMS}.")
    return tuple(map(_code, items))


def _code(value: Any) -> str:
    """A name, or a class or function as such. Raises `ValueError`."""
    if isinstance(value, Factory):
        return value
    if callable(value) and not isinstance(value, str):
        return Factory.of(value)
    try:
        name: str = converted(value, str)
    except ValueError as error:
        raise ValueError(f"{str(error).rstrip('.')}, class or function that makes one.") from None
    return name


def changed(config: Config, values: Mapping[str, float]) -> Config:
    """The configuration with other values of live options. Raises `ConfigError`."""
    return dataclasses.replace(config, **values)  # type: ignore[arg-type]


LEARNER_OPTIONS = (
    "mode",
    "env",
    "wrapper",
    "vector",
    "network",
    "hidden_sizes",
    "memory",
    "memory_size",
    "action_bounds",
    "action_mask",
    "optimizer",
    "norm_obs",
    "norm_rewards",
    "norm_returns",
)


def check_same_learner(saved: Config, wanted: Config) -> None:
    """Refuse to resume with options that a checkpoint does not fit. Raises `ConfigError`."""
    for name in LEARNER_OPTIONS:
        before, now = getattr(saved, name), getattr(wanted, name)
        if before != now:
            raise ConfigError(
                f"{flag(name)} {_in_words(now)} differs from the {_in_words(before)} of the run that "
                "--resume names: start a new run for it."
            )


_KEPT: Mapping[str, Any] = {
    "env": str,
    "env_kwargs": Kwargs,
    "wrapper": tuple[str, ...],
    "vector": str,
    "network": str,
}
IMPORTING_OPTIONS = ("env", "network", "wrapper", "vector")
_HARMLESS = "gymnasium.wrappers:"
_IS_CODE = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")


_EXAMPLES = {"wrapper": "gymnasium.wrappers:FlattenObservation", "vector": "my_module:make_vector"}


def _in_words(value: Any) -> str:
    """As the command line has it."""
    return " ".join(map(str, codes(value))) or "none"


def codes(value: Any) -> tuple[Any, ...]:
    """The names, classes and functions of one of these options, of which some have several."""
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def require_consent(saved: Config, repeated: Mapping[str, Any], where: str | Path) -> Config:
    """A checkpoint may name code, and does not decide that it is imported: its reader repeats the name.

    Or gives the class or function itself, which the configuration that is returned has. Raises
    `ConfigError`.
    """
    given: dict[str, Any] = {}
    for name in IMPORTING_OPTIONS:
        value = getattr(saved, name)
        before, now = codes(value), codes(repeated.get(name) or "")
        paired = now if len(now) == len(before) else ("",) * len(before)
        agreed: list[Any] = []
        for code, again in zip(before, paired, strict=True):
            if _holds_code(again) and (":" in code or is_factory(code)):
                code = again
            elif ":" in code and code not in now and not code.startswith(_HARMLESS):
                raise ConfigError(
                    f"{where} would import {code.partition(':')[0]}: if you trust it, repeat "
                    f"{flag(name)} {_in_words(value)}."
                )
            agreed.append(code)
        given[name] = agreed if isinstance(value, tuple) else agreed[0]
    return dataclasses.replace(saved, **given)


def _holds_code(value: Any) -> bool:
    """Whether it is a class or function itself, and not its name."""
    return callable(value) or isinstance(value, Factory)


@functools.cache
def option_types() -> Mapping[str, Any]:
    """The type of each option, as it is kept, and written in a file or as a flag."""
    return {**get_type_hints(Config), **_KEPT}
