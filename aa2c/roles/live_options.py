"""Options that were set live, where numbers are not finite: a rollback undoes them first."""

from __future__ import annotations

from typing import Any

from aa2c.config.config import Config
from aa2c.config.options import LIVE_OPTIONS
from aa2c.ports import Report, UpdaterPort

Options = dict[str, Any]


class LiveOptions:
    """What the live options are, were at the last checkpoint, and were when the run was started."""

    def __init__(self, config: Config, port: UpdaterPort) -> None:
        self._port = port
        self._at_start = _options(config)
        self._at_checkpoint = self._now()

    def _now(self) -> Options:
        return _options(self._port.config_now())

    def to_save(self, *, is_failing: bool, has_failed: bool) -> Config:
        """The configuration for a checkpoint that is written now.

        Where it fails now, what was set since the last checkpoint may be why, and must not fail the
        run again when it is resumed; where it has failed for good, so may all that was set.
        """
        config = self._port.config_now()
        if not (is_failing or has_failed):
            self._at_checkpoint = _options(config)
            return config
        good = self._at_start if has_failed else self._at_checkpoint
        return Config(**(vars(config) | good))

    def undo(self) -> bool:
        """Undo what was set since the last checkpoint, or else all that was; False if nothing was.

        Returns when everyone sees the options of before.
        """
        now = self._now()
        good = self._at_checkpoint if now != self._at_checkpoint else self._at_start
        undone = {name: value for name, value in good.items() if value != now[name]}
        self._at_checkpoint = good
        if undone:
            self._port.report(Report.OPTIONS_UNDONE, options=undone)
        while undone and self._now() == now and self._port.beat():
            self._port.wait()
        return bool(undone)


def _options(config: Config) -> Options:
    return {name: getattr(config, name) for name in LIVE_OPTIONS}
