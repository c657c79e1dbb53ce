"""What children report that is worth a line in the run's log, and nothing else.

Runs in the orchestrator.
"""

from __future__ import annotations

from typing import Any

from aa2c.ports import Message, Report
from aa2c.run.ignored import tell_of_ignored


def log_report(log: Any, message: Message) -> None:
    """Log it; all other kinds of reports are acted on elsewhere."""
    match message["kind"]:
        case Report.PRECISION:
            log.info("precision", chosen=message["chosen"], reason=message["reason"])
        case Report.IGNORED:
            tell_of_ignored(log, message["options"])
        case Report.UNSAVED:
            log.warning("a checkpoint was not written", reason=message["reason"])
        case Report.RETURNED:
            log.info(
                f"returned to the best checkpoint, {message['name']}: mean return {message['score']:.1f}",
                act="best",
            )
        case Report.RESUMED if message["path"]:
            log.info("the updater resumes from a checkpoint", path=message["path"])
        case Report.RESUMED:
            log.warning("there is no checkpoint: the updater learns from the beginning")
        case Report.REJECTED:
            log.warning(
                "a record was rejected: are rewards and observations finite? (told once)",
                worker=message["worker"],
            )
