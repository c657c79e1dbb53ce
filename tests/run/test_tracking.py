"""Trackers, with their real packages: what they keep of a run, and what they may not do to it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from aa2c import Orchestrator
from aa2c.run import tracking
from aa2c.run.tracking import Tracking

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning",  # of protobuf and numpy, in packages that are not ours
    "ignore:unclosed:ResourceWarning:wandb",
)


class Log:
    """Keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.warnings.append((event, fields))


def scalars(run_dir: Any) -> dict[str, list[Any]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tb"))
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


@pytest.mark.long
async def test_a_run_is_recorded_for_both_trackers_and_again_after_a_resume(small, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    # Nothing is lost, however long wandb takes to open and to close.
    monkeypatch.setattr(tracking, "MOST_WAITING", 10**6)
    monkeypatch.setattr(tracking, "CLOSE_TIMEOUT_S", 60.0)
    config = small(total_env_steps=20_000, track=("tensorboard", "wandb"), name="tracked")
    async with Orchestrator(config) as run:
        started = time.monotonic()
        await run.ready()
        status = await run.wait()
        assert time.monotonic() - started < 60
    found = scalars(run.dir)
    returns = found["charts/episodic_return"]
    assert len(returns) == status["progress"]["episodes"]
    assert [event.step for event in returns] == sorted(event.step for event in returns)
    assert max(event.step for event in found["charts/SPS"]) == status["progress"]["env_steps"]
    for tag in ("losses/value_loss", "losses/policy_loss", "charts/learning_rate"):
        assert found[tag], tag
    assert "losses/approx_kl" not in found, "mode grad has none"
    assert list((run.dir / "wandb").glob("offline-run-*/run-tracked.wandb"))
    log = [json.loads(line) for line in (run.dir / "log.jsonl").read_text().splitlines()]
    assert [line for line in log if line["level"] != "info"] == []
    longer = small(total_env_steps=30_000, track=("tensorboard",), name="tracked")
    async with Orchestrator(longer, resume=run.dir) as again:
        await again.wait()
    assert max(event.step for event in scalars(run.dir)["charts/SPS"]) >= 30_000
    wandb.teardown()  # its service process lives as long as this process otherwise


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(small, tmp_path, monkeypatch):
    class Broken:
        def __init__(self, *_: Any) -> None: ...

        def log(self, *_: Any) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setitem(tracking.KINDS, "wandb", Broken)
    log = Log()
    both = Tracking(tmp_path, small(track=("wandb", "tensorboard")), log)
    for i in range(3):
        both.add_episodes([(float(i), 10)])
    both.close()
    assert [event for event, _ in log.warnings] == ["a tracker is switched off"]
    assert log.warnings[0][1]["tracker"] == "wandb"
    assert [event.value for event in scalars(tmp_path)["charts/episodic_return"]] == [0, 1, 2]


def test_a_tracker_that_hangs_holds_nobody_up(small, tmp_path, monkeypatch):
    class Hanging:
        def __init__(self, *_: Any) -> None:
            time.sleep(3600)

    monkeypatch.setitem(tracking.KINDS, "wandb", Hanging)
    monkeypatch.setattr(tracking, "CLOSE_TIMEOUT_S", 0.4)
    log = Log()
    started = time.monotonic()
    hanging = Tracking(tmp_path, small(track=("wandb",)), log)
    for i in range(3 * tracking.MOST_WAITING):
        hanging.add_episodes([(float(i), 10)])
    hanging.close()
    assert time.monotonic() - started < 2
    lost_and_late = ["a tracker loses rows", "a tracker did not finish in time"]
    assert [event for event, _ in log.warnings] == lost_and_late


def test_without_track_there_is_no_thread(small, tmp_path):
    none = Tracking(tmp_path, small(), Log())
    none.add_episodes([(1.0, 1)])
    assert not none._thread.is_alive()
    none.close()
    assert list(tmp_path.iterdir()) == []
