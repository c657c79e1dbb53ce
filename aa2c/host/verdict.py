"""Whether a run that ended as it should has failed nevertheless: not saved, or nothing learned.

Runs in the orchestrator.
"""

from __future__ import annotations

from typing import Any

from aa2c.config.config import Config
from aa2c.errors import RunFailed
from aa2c.host.incarnation import ChildSlot, exit_in_words
from aa2c.host.telemetry import RunCounters


def failure(
    slot: ChildSlot,
    counters: RunCounters,
    config: Config,
    log: Any,
    *,
    is_saved: bool,
    was_away: bool,
) -> RunFailed | None:
    """Why the run has failed, if it has. `slot` is the updater's, which `was_away` at the end."""
    updater = slot.child
    if updater is None or not slot.has_come_up:
        return None
    if not is_saved:
        if was_away and counters.updater.value("checkpoint_time"):
            log.warning("the newest checkpoint is not of the end: the updater had died")
            return None
        reason = updater.error or exit_in_words(updater.exited.result())
        return RunFailed(f"the last checkpoint was not written: {reason}.")
    is_done = counters.env_steps >= config.total_env_steps
    if is_done and not counters.updates_made:
        rejected = counters.updater.count("rejected")
        return RunFailed(
            f"nothing was learned: there was no update, and {rejected} records were rejected."
        )
    return None
