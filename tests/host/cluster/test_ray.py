"""Runs on a real Ray cluster of three nodes on this machine; also: what is refused, and by whom."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import psutil
import pytest

from aa2c import Orchestrator
from aa2c.errors import StartError
from tests.conftest import not_checked, now, until
from tests.host.cluster.nodes import Nodes

if importlib.util.find_spec("ray") is None:
    not_checked("runs on a Ray cluster", "ray is not installed")

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def token(tmp_path_factory):
    path = tmp_path_factory.mktemp("ray") / "token"
    path.write_text("0123456789abcdef" * 4)
    path.chmod(0o600)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, token):
    made = Nodes(tmp_path_factory.mktemp("nodes"), token)
    yield made
    made.close()


@pytest.fixture
def on_ray(small, token, monkeypatch):
    for name, value in token.items():
        monkeypatch.setenv(name, value)

    def make(**options):
        ours = {"engine": "ray", "mode": "traj", "workers": 2, "workers_per_host": 1}
        return small(**{**ours, "restart_backoff_s": 0.01, "total_env_steps": 10**9, **options})

    return make


def host_of(worker):
    """The actor's process that has this worker."""
    return psutil.Process(worker["pid"]).parent()


def left_of(run):
    """Processes and memory of a run, on whatever node."""
    name = run.dir.name[-8:]
    titles = ("aa2c-worker", "aa2c-updater", "aa2c-engine")
    living = [
        p.info["pid"]
        for p in psutil.process_iter(["pid", "name", "environ"])
        if str(p.info["name"]).startswith(titles)
        and (p.info["environ"] or {}).get("AA2C_TEST_RUN") == str(os.getpid())
    ]
    return living + [path for path in Path("/dev/shm").glob("aa2c-*") if name in path.name]


async def test_a_run_on_three_nodes_survives_them(on_ray, nodes, monkeypatch):
    """A worker, a host, a node and the engine's process end, one after the other."""
    monkeypatch.setenv("AA2C_TEST_RUN", str(os.getpid()))
    async with Orchestrator(on_ray(address=nodes.address)) as run:
        await run.ready()

        def workers():
            return run.status()["workers"]

        async def all_work():
            await until(lambda: all(w["state"] == "running" for w in workers()), timeout_s=90)
            steps = [w["env_steps"] for w in workers()]
            await until(
                lambda: all(w["env_steps"] > s for w, s in zip(workers(), steps, strict=True))
            )

        await all_work()
        raylets = [host_of(worker).parent().pid for worker in workers()]
        assert sorted(raylets) == sorted(nodes.raylets), "one host on each node"
        environment = psutil.Process(workers()[0]["pid"]).environ()
        assert [name for name in environment if name.startswith("RAY_")] == []

        os.kill(workers()[0]["pid"], signal.SIGKILL)
        await until(lambda: workers()[0]["exits"] == {"SIGKILL": 1})
        host_of(workers()[1]).kill()
        await until(lambda: workers()[1]["exits"] == {"host lost": 1})
        await all_work()

        doomed = host_of(workers()[0])
        of_node = nodes.raylets.index(doomed.parent().pid)
        nodes.kill(of_node)
        await until(lambda: workers()[0]["exits"].get("host lost") == 1)
        updates = workers()[1]["env_steps"]
        await until(lambda: workers()[1]["env_steps"] > updates), "the other one continues"
        await until(lambda: [h for h in run.status()["hosts"] if h["state"] == "waiting"])
        nodes.add()
        await all_work()

        os.kill(run._engine._remote.engine.pid, signal.SIGKILL)
        await until(lambda: all(w["exits"].get("engine lost") == 1 for w in workers()))
        await all_work()
        assert now(run)["updates"] > 0
        await run.stop()
    await until(lambda: not left_of(run), timeout_s=40)


async def test_a_cluster_refuses_who_has_another_token(on_ray, nodes, tmp_path, monkeypatch):
    other = tmp_path / "token"
    other.write_text("f" * 64)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(other))
    async with Orchestrator(on_ray(address=nodes.address)) as run:
        with pytest.raises(StartError, match="cannot connect to the Ray cluster"):
            await run.wait()


async def test_a_cluster_that_asks_for_no_token_is_refused(on_ray, tmp_path):
    opened = Nodes(tmp_path, {"RAY_AUTH_MODE": "disabled"}, workers=0)
    try:
        async with Orchestrator(on_ray(address=opened.address)) as run:
            with pytest.raises(StartError, match="asks for no token"):
                await run.wait()
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
