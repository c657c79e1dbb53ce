"""What a run resumes from: a checkpoint of its own, beside the config.toml of its directory.

Imports no torch.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aa2c.checkpoints.files import (
    CheckpointError,
    CheckpointFiles,
    read_checkpoint,
    sequence_of,
)
from aa2c.config.config import LEARNER_OPTIONS, Config, check_same_learner, flag
from aa2c.config.options import LIVE_OPTIONS
from aa2c.config.toml import structure
from aa2c.errors import ConfigError


def read_to_resume(path: Path) -> CheckpointFiles:
    """The newest good checkpoint of a run, or the one that is named.

    One that is not of the run in whose directory it lies is passed over. Raises `CheckpointError`,
    and `ConfigError` if the run's config.toml is damaged.
    """
    configured = _configured(_run_dir(path))
    return read_checkpoint(path, lambda saved: _own(saved, configured) if configured else saved)


def config_to_resume(path: Path) -> Config:
    """What a run is resumed with where its owner says nothing else.

    As its config.toml says, which may have been edited, but for the options that can be set live:
    these are the checkpoint's. Raises as `read_to_resume` does.
    """
    saved = read_to_resume(path).config
    configured = _configured(_run_dir(path)) or saved
    return dataclasses.replace(configured, **{name: getattr(saved, name) for name in LIVE_OPTIONS})


def differences(run_dir: Path, config: Config) -> dict[str, str]:
    """The options of which a run's config.toml says otherwise, with both values."""
    before = _configured(run_dir) or config
    pairs = {
        item.name: (getattr(before, item.name), getattr(config, item.name))
        for item in dataclasses.fields(Config)
    }
    return {name: f"{was!r}, now {now!r}" for name, (was, now) in pairs.items() if was != now}


def tell_of_resuming(log: Any, saved: CheckpointFiles, edits: Mapping[str, str]) -> None:
    """Log what the owner of a run that is resumed might not expect; `edits` are `differences`."""
    if saved.passed_over:
        log.warning("newer checkpoints were passed over", why="; ".join(saved.passed_over))
    if edits:
        said = "; ".join(f"{name} = {values}" for name, values in edits.items())
        tell = log.warning if edits.keys() & set(LIVE_OPTIONS) else log.info
        tell("config.toml said otherwise: a live option is changed by its flag", options=said)


def dir_to_resume(saved: CheckpointFiles, config: Config) -> Path:
    """The directory of a run that is to be resumed so. Raises `ConfigError` if it cannot."""
    check_same_learner(saved.config, config)
    if saved.counts["env_steps"] >= config.total_env_steps:
        raise ConfigError(
            f"--resume {saved.run_dir}: the run has had its {saved.counts['env_steps']:,} env "
            "steps; give it more with --total-env-steps."
        )
    return saved.run_dir


def newest_after(
    run_dir: Path, config: Config, sequence: int, otherwise: Path | None
) -> Path | None:
    """The newest good checkpoint of a run after that of a sequence number, or what it began with."""
    try:
        saved = read_checkpoint(run_dir, lambda files: _own(files, config))
    except CheckpointError:
        return otherwise
    return saved.path if sequence_of(saved.path) > sequence else otherwise


def _own(saved: CheckpointFiles, config: Config) -> CheckpointFiles:
    """The checkpoint, if it is of a run of this configuration. Raises `CheckpointError`."""
    for name in LEARNER_OPTIONS:
        its, of_run = getattr(saved.config, name), getattr(config, name)
        if its != of_run:
            raise CheckpointError(
                f"it is not of this run: it has {flag(name)} {its}, config.toml {of_run}"
            )
    return saved


def _run_dir(path: Path) -> Path:
    """The directory of a run, given that, its checkpoints/ or one of its checkpoints."""
    for part in (path, path.parent):
        if part.name == "checkpoints":
            return part.parent
    return path


def _configured(run_dir: Path) -> Config | None:
    """What a run's config.toml says, None if there is none. Raises `ConfigError`."""
    path = run_dir / "config.toml"
    try:
        return Config(**structure(tomllib.loads(path.read_text()), str(path)))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from None
