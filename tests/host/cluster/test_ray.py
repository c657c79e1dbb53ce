"""Runs on a real Ray cluster of three nodes on this machine; also: what is refused, and by whom."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import signal
import subprocess
import sys

import psutil
import pytest

from aa2c import Orchestrator
from aa2c.checkpoints.tensors import load_checkpoint
from aa2c.errors import StartError
from aa2c.host import engine, journal
from aa2c.host.cluster.ray import (
    STORE_IS_FULL,
    in_words,
    mismatch,
    require_token,
    versions,
)
from aa2c.shm.relay import OutOfOrder
from aa2c.version import __version__
from tests.conftest import not_checked, now, until
from tests.host.cluster.newer import WANTED, Newer
from tests.host.cluster.odd_envs import env_without_ray, large_env
from tools.ray_nodes import Nodes, audit, processes_of, segments_of, token_in

if importlib.util.find_spec("ray") is None:
    not_checked("runs on a Ray cluster", "ray is not installed")

OTHER_PYTHON = "3.8.1"

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    return token_in(tmp_path_factory.mktemp("ray")) | {
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # instead of a minute
        "RAY_local_fs_capacity_threshold": "0.001",  # there is no room on the disk
    }


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """Where hosts keep their files, journals among them."""
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, token, scratch):
    for_hosts = {journal.VARIABLE: "1", "TMPDIR": str(scratch), "RAY_TMPDIR": "/tmp"}
    made = Nodes(tmp_path_factory.mktemp("nodes"), token | for_hosts)
    yield made
    made.close()


@pytest.fixture
def on_ray(small, token, monkeypatch):
    for name, value in token.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(journal.VARIABLE, "1")

    def make(**options):
        ours = {"engine": "ray", "mode": "traj", "workers": 2, "workers_per_host": 1}
        return small(**{**ours, "restart_backoff_s": 0.01, "total_env_steps": 10**9, **options})

    return make


def host_of(worker):
    """The actor's process that has this worker."""
    return psutil.Process(worker["pid"]).parent()


def left_of(run):
    """Processes and memory of a run, on whatever node."""
    left = {*processes_of(run.id, run.dir), *segments_of(run.id, run.dir)}
    return left - {os.getpid()}


async def all_work(run):
    await until(lambda: {w["state"] for w in run.status()["workers"]} == {"running"}, timeout_s=90)
    for worker in run.status()["workers"]:
        await works(run, worker["id"])


async def works(run, worker):
    steps = run.status()["workers"][worker]["env_steps"]
    await until(lambda: run.status()["workers"][worker]["env_steps"] > steps)


@contextlib.asynccontextmanager
async def audited(config, scratch):
    """A run whose workers all work; afterwards its records are accounted for, and nothing is left of it."""
    async with Orchestrator(config) as run:
        await run.ready()
        await all_work(run)
        yield run
        status = await run.stop()
    audit(run.dir, scratch, status)
    await until(lambda: not left_of(run), timeout_s=40)


async def check_refused(config, words):
    async with Orchestrator(config) as run:
        with pytest.raises(StartError, match=words):
            await run.wait()


async def test_a_run_on_three_nodes_survives_them(on_ray, nodes, scratch):
    """A worker, a host, a node and the engine's process end, one after the other."""
    async with audited(on_ray(address=nodes.address, env=env_without_ray), scratch) as run:

        def workers():
            return run.status()["workers"]

        raylets = [host_of(worker).parent().pid for worker in workers()]
        assert sorted(raylets) == sorted(nodes.raylets), "one host on each node"
        status = run.status()
        pids = {status["updater"]["pid"], status["engine"]["pid"]}
        pids |= {pid for w in workers() for pid in (w["pid"], host_of(w).pid)}
        assert pids <= left_of(run), "what is left at the end would be seen"

        os.kill(workers()[0]["pid"], signal.SIGKILL)
        await until(lambda: workers()[0]["exits"] == {"SIGKILL": 1})
        host_of(workers()[1]).kill()
        await until(lambda: workers()[1]["exits"] == {"host lost": 1})
        await all_work(run)

        doomed = host_of(workers()[0])
        of_node = nodes.raylets.index(doomed.parent().pid)
        nodes.kill(of_node)
        await until(lambda: workers()[0]["exits"].get("host lost") == 1)
        await works(run, 1)  # the other one continues
        await until(lambda: [h for h in run.status()["hosts"] if h["state"] == "waiting"])
        nodes.add()
        await all_work(run)

        os.kill(run._engine._remote.engine.pid, signal.SIGKILL)
        await until(lambda: all(w["exits"].get("engine lost") == 1 for w in workers()))
        await all_work(run)
        assert run.status()["engine"]["exits"] == {"SIGKILL": 1}


async def test_a_frozen_host_is_stalled_then_lost_and_does_nothing_when_it_thaws(
    on_ray, nodes, scratch
):
    async with audited(on_ray(address=nodes.address), scratch) as run:
        frozen = host_of(run.status()["workers"][0])
        frozen.suspend()
        await until(lambda: "stalled" in [host["state"] for host in run.status()["hosts"]])
        await works(run, 1)  # the other one continues
        await until(lambda: run.status()["workers"][0]["exits"] == {"host lost": 1})
        with contextlib.suppress(psutil.NoSuchProcess):
            frozen.resume()
        await all_work(run)
        assert host_of(run.status()["workers"][0]) != frozen
        await until(lambda: not frozen.is_running(), timeout_s=90)
    assert "it has not answered for 20 s" in (run.dir / "log.jsonl").read_text()


async def test_a_host_of_another_version_is_refused(on_ray, nodes, monkeypatch):
    monkeypatch.setitem(engine.CLUSTERS, "ray", Newer)
    words = rf"has aa2c {__version__}, and aa2c {WANTED} is wanted"
    await check_refused(on_ray(address=nodes.address), words)


def test_a_cluster_of_another_ray_is_refused_with_both_versions(token, nodes, tmp_path):
    ours = [sys.executable, "-m", Newer.__module__, nodes.address, str(tmp_path)]
    said = subprocess.run(ours, env=os.environ | token, capture_output=True, text=True).stdout
    assert said.startswith("--engine ray cannot connect to the Ray cluster at"), said
    assert said.count("\n") == 1, "it is one line"
    assert f"Ray: {importlib.metadata.version('ray')}" in said
    assert f"Ray: {WANTED}" in said


@pytest.fixture
def with_other_python(token, nodes):
    """The cluster, whose head says for a while that it runs on a version of Python that is not ours."""

    def say(version):
        command = [sys.executable, "-m", "tests.host.cluster.other_python", nodes.address, version]
        subprocess.run(command, env=os.environ | token, check=True)

    say(OTHER_PYTHON)
    yield nodes
    say(platform.python_version())


async def test_a_cluster_of_another_python_is_refused_with_both_versions(on_ray, with_other_python):
    words = rf"started with:.* Python: {OTHER_PYTHON} This .* Python: {platform.python_version()}$"
    await check_refused(on_ray(address=with_other_python.address), words)


@pytest.mark.parametrize("what", ["aa2c", "Ray", "Python"])
def test_a_host_is_refused_for_each_version_that_is_not_the_drivers(what):
    ours = versions()
    assert mismatch(ours, ours, "node-7") == ""
    of_host = {**ours, what: "0.1"}
    words = f"node-7 has {what} 0.1, and {what} {ours[what]} is wanted: install the same versions"
    assert mismatch(ours, of_host, "node-7").startswith(words)


async def test_a_cluster_refuses_who_has_another_token(on_ray, nodes, tmp_path, monkeypatch):
    other = tmp_path / "token"
    other.write_text("f" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(other))
    await check_refused(on_ray(address=nodes.address), "cannot connect to the Ray cluster")


def test_a_machine_too_busy_to_ask_for_the_token_is_told_of_in_a_sentence(monkeypatch):
    monkeypatch.setattr("aa2c.host.cluster.ray.TOKEN_S", 0.001)  # no interpreter is as fast
    with pytest.raises(StartError, match="start again when this machine is less busy"):
        require_token("127.0.0.1:1")


def test_a_cluster_that_cannot_be_asked_for_a_token_is_refused(monkeypatch):
    monkeypatch.setattr("aa2c.host.cluster.ray._PROBE", "import ray_of_another_version")
    with pytest.raises(
        StartError, match=r"cannot be told .*ray_of_another_version.*--ray-insecure"
    ):
        require_token("127.0.0.1:1")


async def test_a_cluster_that_asks_for_no_token_is_refused(on_ray, tmp_path):
    opened = Nodes(tmp_path, {"RAY_AUTH_MODE": "disabled"}, workers=0)
    try:
        await check_refused(on_ray(address=opened.address), "asks for no token")
    finally:
        opened.close()


async def test_a_ray_of_its_own_has_a_token_that_only_its_user_can_read(on_ray, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name)
    async with Orchestrator(on_ray()) as run:
        await run.ready()
        assert (run.dir / ".ray-token").stat().st_mode & 0o777 == 0o600
        await until(lambda: now(run)["updates"] > 0)
        await run.stop()
    assert not (run.dir / ".ray-token").exists()


def test_what_ray_tells_in_many_lines_is_told_in_one():
    from ray.exceptions import OutOfDiskError, RayTaskError

    with pytest.raises(ConnectionError, match=STORE_IS_FULL), in_words():
        raise OutOfDiskError("Local disk is full\nand more")
    failed = RayTaskError("collect", "Traceback\nof many lines", OutOfOrder("frame 2"))
    with pytest.raises(ConnectionError, match=r"^it failed: OutOfOrder\('frame 2'\)$"), in_words():
        raise failed.as_instanceof_cause()


async def test_a_record_that_does_not_fit_into_a_full_store_is_told_of_and_the_run_stops_well(
    on_ray, nodes
):
    """One of 100 MB: two hosts fail at it again and again."""
    config = on_ray(address=nodes.address, env=large_env, num_steps=128, update_epochs=1)
    async with Orchestrator(config) as run:
        log = run.dir / "log.jsonl"
        await until(lambda: STORE_IS_FULL in log.read_text(), timeout_s=150)
        assert "and the smallest object store of the cluster 82 MB" in log.read_text()
        await run.stop()
    await until(lambda: not left_of(run), timeout_s=40)


async def test_a_run_whose_cluster_loses_its_head_says_so_and_waits_for_another(
    on_ray, nodes, scratch
):
    """The last one: nothing is left of the cluster."""
    async with audited(on_ray(address=nodes.address), scratch) as run:
        os.kill(nodes.head, signal.SIGKILL)
        log = run.dir / "log.jsonl"
        await until(lambda: all(w["exits"] for w in run.status()["workers"]))
        assert [w["exits"] for w in run.status()["workers"]] == 2 * [{"engine lost": 1}]
        await until(lambda: "is tried again" in log.read_text())
        assert f"nobody answers at {nodes.address}" in log.read_text()
        assert run.state == "degraded"
        assert "The engine is starting" in run.status()["throughput"]["advice"]
    assert load_checkpoint(run.dir).counts["env_steps"] > 0
