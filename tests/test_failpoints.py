"""Processes that end at every failpoint, and at random: no promise is broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from aa2c import Orchestrator, failpoint
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.host import journal
from aa2c.modes.mode import MODES
from tests.conftest import now, until

ROOT = Path(__file__).parents[1]

WORKER_PLACES = [place for place in failpoint.PLACES if place.split(".")[0] in ("worker", "ring")]
UPDATER_PLACES = [
    place for place in failpoint.PLACES if place.split(".")[0] in ("updater", "checkpoint")
]
ACTIONS = ("kill", "raise", "stop")
DELAY_S = 0.05


def traps(mode: str) -> list[str]:
    """Every place of a mode, at each another action; other modes have other pairs."""
    turn = list(MODES).index(mode)
    workers = WORKER_PLACES + (["model.locked", "model.mid_step"] if mode == "model" else [])
    updaters = UPDATER_PLACES + ([] if mode == "model" else ["params.mid_publish"])
    set_for = [(f"aa2c-worker-{i % 3}.{i // 3}", place) for i, place in enumerate(workers)]
    set_for += [(f"aa2c-updater.{i}", place) for i, place in enumerate(updaters)]
    set_for += [("aa2c-evaluator", "evaluator.before_report")]
    ends = [
        f"{process}:{place}={ACTIONS[(i + turn) % len(ACTIONS)]}@2"
        for i, (process, place) in enumerate(set_for)
    ]
    delays = [f"{process}:{place}={DELAY_S}@1" for process, place in delayed(set_for)]
    return ends + delays


def delayed(set_for: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each place once more, in an incarnation of the same role that ends at another one."""
    places: dict[str, list[str]] = {}
    for process, place in set_for:
        places.setdefault(process.split(".")[0].rstrip("012"), []).append(place)
    found = []
    for process, place in set_for:
        of_role = places[process.split(".")[0].rstrip("012")]
        other = of_role[(of_role.index(place) + 1) % len(of_role)]
        if other != place:
            found.append((process, other))
    return found


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
async def test_nothing_is_lost_that_was_promised_wherever_a_process_ends(small, mode, monkeypatch):
    """A walk over all failpoints: each incarnation of a process ends at another place."""
    monkeypatch.setenv(journal.VARIABLE, "1")
    monkeypatch.setenv(failpoint.VARIABLE, ";".join(traps(mode)))
    config = small(
        mode=mode,
        workers=3,
        total_env_steps=10**9,
        checkpoint_interval_s=1.0,
        eval_interval_s=1.0,
        eval_episodes=1,
        stall_timeout_s=3.0,
    )
    ends = [trap for trap in traps(mode) if trap.endswith("@2")]
    updater_ends = sum(trap.startswith("aa2c-updater") for trap in ends)
    worker_ends = sum(trap.startswith("aa2c-worker") for trap in ends)
    async with Orchestrator(config) as run:
        await run.ready()
        seen = dict.fromkeys(("env_steps", "updates", "policy_version", "episodes"), 0)

        def all_have_ended():
            for name in seen:
                assert now(run)[name] >= seen[name], name
                seen[name] = now(run)[name]
            status = run.status()
            assert status["run"]["state"] in ("running", "degraded"), status["run"]["error"]
            return (
                sum(status["updater"]["exits"].values()) == updater_ends
                and sum(sum(w["exits"].values()) for w in status["workers"]) == worker_ends
                and sum(status["evaluator"]["exits"].values()) == 1
            )

        await until(all_have_ended, timeout_s=240)
        await until(lambda: run.status()["updater"]["state"] == "running")
        updates = seen["updates"]
        await until(lambda: now(run)["updates"] > updates + 10)
        await run.stop()
    records = journal.check(run.dir / "journal")
    assert records["taken"] > 0
    for ring in run.status()["rings"]:
        assert {k: n for k, n in ring["dropped"].items() if n and k != "lost"} == {}
    assert load_checkpoint(run.dir).counts["updates"] >= updates


def test_every_failpoint_is_in_the_code_once():
    code = "\n".join(path.read_text() for path in (ROOT / "aa2c").rglob("*.py"))
    for place in failpoint.PLACES:
        assert code.count(f'failpoint("{place}")') == 1, place


@pytest.mark.parametrize("spec", ["a:nowhere=kill", "a:model.locked=explode"])
def test_a_failpoint_that_does_not_exist_is_refused(spec, monkeypatch):
    monkeypatch.setenv(failpoint.VARIABLE, spec)
    with pytest.raises(ValueError, match=r"nowhere|explode"):
        failpoint.arm("a", 0)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", MODES)
def test_chaos(mode):
    """The short form of tools/chaos.py."""
    command = [sys.executable, ROOT / "tools/chaos.py", "--mode", mode, "--minutes", "0.35"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-3000:]
    report = json.loads(output)
    assert sum(report["acts"].values()) > 10
    assert report["records"]["taken"] > 0
