"""Errors that a user can act on. Each has the exit code with which `serve` then ends."""

from __future__ import annotations


class Aa2cError(Exception):
    """One sentence for the user: what is wrong, with which option, and the remedy."""

    exit_code = 1


class RunFailed(Aa2cError):
    """The run had come up, and could not continue."""

    exit_code = 1


class ConfigError(Aa2cError):
    """Wrong usage or configuration; nothing was started."""

    exit_code = 2


class StartError(Aa2cError):
    """The run never came up."""

    exit_code = 3


class SharedMemoryTooSmall(StartError):
    """/dev/shm cannot hold the run; refused before anything is trained."""


class NoRecipeWarning(UserWarning):
    """A run is started with the bare defaults, and its task has a recipe."""


class ControlRefused(Aa2cError):
    """A command that the run cannot carry out in its current state."""
