"""Trackers, with their real packages: what they keep of a run, and what they may not do to it."""

from __future__ import annotations

import asyncio
import importlib
import json
import threading
import time
from typing import Any

import pytest

from aa2c import ConfigError, Orchestrator
from aa2c.run import trackers, tracking
from aa2c.run.tracking import Tracking
from tests.conftest import not_checked

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


def required(what: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        not_checked(what, f"{name} is not installed")


def drained(of_run: Tracking) -> None:
    of_run.end()
    asyncio.run(of_run.drain())


def read(run_dir: Any) -> Any:
    """The run's events, as TensorBoard reads them."""
    required("TensorBoard's event files", "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tb"), size_guidance={"scalars": 0})
    events.Reload()
    return events


def scalars(run_dir: Any) -> dict[str, list[Any]]:
    events = read(run_dir)
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def hparams(logdir: Any) -> tuple[Any, Any]:
    """What TensorBoard's HPARAMS shows of a directory of runs: hyperparameters, and runs by name."""
    required("TensorBoard's hyperparameters", "tensorboard")
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(logdir)).Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(logdir))
    context = backend_context.Context(TBContext(data_provider=provider, logdir=str(logdir)))
    request = RequestContext()
    metadata = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(request, "", True, metadata, None)
    asked = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS], slice_size=100
    )
    handler = list_session_groups.Handler(request, context, "", asked)
    sessions = [session for group in handler.run().session_groups for session in group.sessions]
    return experiment, {session.name: session for session in sessions}


@pytest.mark.long
async def test_a_run_is_recorded_for_both_trackers_and_again_after_a_resume(small, monkeypatch):
    wandb = required("Weights & Biases", "wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    # However long wandb takes to close.
    monkeypatch.setattr(tracking, "CLOSE_TIMEOUT_S", 60.0)
    options = {"eval_interval_s": 3600.0, "eval_episodes": 2, "eval_max_steps": 60}
    options |= {"eval_video": True, "name": "tracked"}
    config = small(total_env_steps=20_000, track=("tensorboard", "wandb"), **options)
    async with Orchestrator(config) as run:
        status = await run.wait()
    found = scalars(run.dir)
    returns = found["charts/episodic_return"]
    assert len(returns) == status["progress"]["episodes"]
    assert [event.step for event in returns] == sorted(event.step for event in returns)
    assert max(event.step for event in found["charts/SPS"]) == status["progress"]["env_steps"]
    for tag in ("losses/value_loss", "losses/policy_loss", "charts/learning_rate"):
        assert found[tag], tag
    assert "losses/approx_kl" not in found, "mode grad has none"
    for policy, test in status["returns"]["test"].items():
        last = found[f"test/{policy}_return"][-1]
        assert (last.step, last.value) == (test["env_steps"], pytest.approx(test["mean"]))
    [video] = (run.dir / "videos").glob(f"step-{test['env_steps']:012}.mp4")
    assert video.read_bytes()[4:8] == b"ftyp"
    assert read(run.dir).Images("test/greedy_game")[-1].step == test["env_steps"]
    assert list((run.dir / "wandb").glob("offline-run-*/run-tracked.wandb"))
    assert list((run.dir / "wandb").glob("offline-run-*/files/media/videos/test/*.mp4"))
    log = [json.loads(line) for line in (run.dir / "log.jsonl").read_text().splitlines()]
    assert [line for line in log if line["level"] != "info" and "warning" not in line] == []
    longer = small(total_env_steps=30_000, track=("tensorboard",), name="tracked")
    async with Orchestrator(longer, resume=run.dir) as again:
        await again.wait()
    assert max(event.step for event in scalars(run.dir)["charts/SPS"]) >= 30_000
    wandb.teardown()  # its service process lives as long as this process otherwise


def test_tensorboard_finds_runs_in_their_directory_and_the_hyperparameters_that_differ(
    small, tmp_path
):
    for name, rate in (("one", 0.001), ("two", 0.01)):
        config = small(track=("tensorboard",), learning_rate=rate, hidden_sizes=(8, 9))
        of_run = Tracking(tmp_path / name, config, Log())
        of_run.add_test("greedy", 500, 7.0, [(7.0, 3), (7.0, 4)])
        drained(of_run)
    experiment, sessions = hparams(tmp_path)
    assert [info.name for info in experiment.hparam_infos if info.differs] == ["learning_rate"]
    assert {info.name.tag for info in experiment.metric_infos} >= {"test/greedy_return"}
    assert set(sessions) == {"one/tb", "two/tb"}
    metrics = {value.name.tag: value for value in sessions["two/tb"].metric_values}
    returned = metrics["test/greedy_return"]
    assert (returned.value, returned.training_step) == (7, 500)
    assert metrics["test/greedy_length"].value == 3.5
    from tensorboard.plugins.hparams.metadata import (
        SESSION_START_INFO_TAG,
        parse_session_start_info_plugin_data,
    )

    told = read(tmp_path / "two").SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    values = parse_session_start_info_plugin_data(told).hparams
    assert values["learning_rate"].number_value == 0.01
    assert values["hidden_sizes"].string_value == "8 9"
    assert values["env"].string_value == "CartPole-v1"
    assert values["deterministic"].HasField("bool_value")
    assert "clip_coef" not in values, "mode grad does not use it"


def test_tensorboard_shows_the_hyperparameters_of_the_newest_start(small, tmp_path):
    for rate in (0.001, 0.5):
        config = small(track=("tensorboard",), learning_rate=rate)
        drained(
            Tracking(tmp_path / "one", config, Log(), env_steps_before=100 if rate > 0.1 else 0)
        )
    from tensorboard.plugins.hparams.metadata import (
        SESSION_START_INFO_TAG,
        parse_session_start_info_plugin_data,
    )

    told = read(tmp_path / "one").SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    assert parse_session_start_info_plugin_data(told).hparams["learning_rate"].number_value == 0.5


def test_tensorboard_shows_nothing_that_a_resume_undid(small, tmp_path):
    for env_steps_before, value in ((0, 1.0), (200, 2.0)):
        config = small(track=("tensorboard",))
        of_run = Tracking(tmp_path, config, Log(), env_steps_before)
        for env_steps in range(env_steps_before, env_steps_before + 400, 100):
            of_run.add_test("greedy", env_steps, value, [(value, 1)])
        drained(of_run)
    events = scalars(tmp_path)["test/greedy_return"]
    assert [(event.step, event.value) for event in events] == [
        (0, 1), (100, 1), (200, 1), (200, 2), (300, 2), (400, 2), (500, 2),
    ]  # fmt: skip


def test_wandb_gets_the_options_as_its_config_and_changed_ones_after_a_resume(
    small, tmp_path, monkeypatch
):
    class Run:
        def __init__(self) -> None:
            self.config = Config()
            self.rows: list[Any] = []

        def define_metric(self, *_: Any, **__: Any) -> None: ...

        def log(self, row: Any) -> None:
            self.rows.append(row)

        def finish(self) -> None: ...

    class Config(dict):
        def update(self, values: Any, *, allow_val_change: bool) -> None:
            assert allow_val_change
            super().update(values)

    wandb = required("Weights & Biases", "wandb")
    run = Run()
    monkeypatch.setattr(wandb, "init", lambda **_: run)
    for rate in (0.1, 0.2):
        of_run = Tracking(tmp_path, small(track=("wandb",), learning_rate=rate), Log())
        of_run.add_test("sampled", 500, None, [(float("nan"), 8)])
        drained(of_run)
        assert run.config["learning_rate"] == rate
    assert run.config["hidden_sizes"] == [16]
    assert run.rows == [{"test/sampled_length": 8, "global_step": 500}] * 2


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
async def test_a_missing_package_is_refused_before_anything_starts(
    small, name, monkeypatch, tmp_path
):
    monkeypatch.setitem(trackers.PACKAGES, name, "no_such_package")
    with pytest.raises(ConfigError, match=rf"--track {name} needs .* pip install 'aa2c\[{name}\]'"):
        await Orchestrator(small(track=(name,))).start()
    assert not (tmp_path / "runs").exists()


def test_a_tracker_that_fails_is_left_out_and_the_others_go_on(small, tmp_path, monkeypatch):
    class Broken:
        def __init__(self, *_: Any) -> None: ...

        def log(self, *_: Any) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setitem(trackers.KINDS, "wandb", Broken)
    log = Log()
    both = Tracking(tmp_path, small(track=("wandb", "tensorboard")), log)
    for i in range(3):
        both.add_episodes([(float(i), 10)])
    drained(both)
    assert [event for event, _ in log.warnings] == ["a tracker is switched off"]
    assert log.warnings[0][1]["tracker"] == "wandb"
    assert [event.value for event in scalars(tmp_path)["charts/episodic_return"]] == [0, 1, 2]


def test_nothing_is_lost_while_a_tracker_opens_and_no_other_waits_for_it(
    small, tmp_path, monkeypatch
):
    opened, taken = threading.Event(), []

    class Slow:
        def __init__(self, *_: Any) -> None:
            assert opened.wait(30)

        def log(self, numbers: Any, _: int) -> None:
            taken.append(numbers["charts/episodic_return"])

        def close(self) -> None: ...

    monkeypatch.setitem(trackers.KINDS, "wandb", Slow)
    log = Log()
    both = Tracking(tmp_path, small(track=("wandb", "tensorboard")), log)
    for i in range(5000):
        both.add_episodes([(float(i), 10)])
    tensorboard = both._feeds[1]
    deadline = time.monotonic() + 60
    while tensorboard.done < 5000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert taken == []
    opened.set()
    drained(both)
    assert taken == list(range(5000))
    assert log.warnings == []


def test_a_tracker_that_hangs_holds_nobody_up_and_what_it_did_not_get_is_counted(
    small, tmp_path, monkeypatch
):
    class Hanging:
        def __init__(self, *_: Any) -> None:
            time.sleep(3600)

    monkeypatch.setitem(trackers.KINDS, "wandb", Hanging)
    monkeypatch.setattr(tracking, "CLOSE_TIMEOUT_S", 0.4)
    monkeypatch.setattr(tracking, "MOST_WAITING", 100)
    log = Log()
    started = time.monotonic()
    hanging = Tracking(tmp_path, small(track=("wandb",)), log)
    for i in range(300):
        hanging.add_episodes([(float(i), 10)])
    drained(hanging)
    assert time.monotonic() - started < 10
    told = [(event, fields.get("rows")) for event, fields in log.warnings]
    assert told == [
        ("a tracker loses rows", None),
        ("a tracker did not finish in time", 100),
        ("a tracker has lost rows", 200),
    ]


def test_without_track_there_is_no_thread(small, tmp_path):
    before = threading.active_count()
    none = Tracking(tmp_path, small(), Log())
    none.add_episodes([(1.0, 1)])
    assert threading.active_count() == before
    drained(none)
    assert list(tmp_path.iterdir()) == []
