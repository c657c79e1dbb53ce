"""The options that may be changed during a run, as every process of it sees them.

The orchestrator writes them into its row of the counters, so that a process which is started again
finds them, too. While nothing changes, a reader looks at one word of shared memory.
"""

from __future__ import annotations

from aa2c.config.config import Config, changed
from aa2c.config.options import LIVE_OPTIONS
from aa2c.ports import Counters


class Settings:
    """The configuration of a run as it is now; `run` is the orchestrator's row."""

    def __init__(self, config: Config, run: Counters) -> None:
        self._configured = self._config = config
        self._run = run
        self._seen: dict[str, float] = {}

    def now(self) -> Config:
        """The configuration, with what has been changed since the start."""
        bits = self._run.count("settings_changed")
        if bits or self._seen:
            values = {
                name: self._run.value(name)
                for bit, name in enumerate(LIVE_OPTIONS)
                if bits >> bit & 1
            }
            if values != self._seen:
                self._seen = values
                self._config = changed(self._configured, values)
        return self._config

    def set(self, name: str, value: float) -> None:
        """Change an option, for everyone. Only the orchestrator may."""
        self._run.set(name, value)
        bit = 1 << LIVE_OPTIONS.index(name)
        self._run.set("settings_changed", self._run.count("settings_changed") | bit)

    def unset(self, name: str) -> None:
        """Restore an option's configured value, for everyone. Only the orchestrator may."""
        bit = 1 << LIVE_OPTIONS.index(name)
        self._run.set("settings_changed", self._run.count("settings_changed") & ~bit)
