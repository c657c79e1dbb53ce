from __future__ import annotations

import pytest

from aa2c.host import engine, journal
from tests.host.cluster.pipes import PipeCluster


@pytest.fixture
def on_hosts(small, tmp_path, monkeypatch):
    """A configuration for hosts that are processes of this machine, which keep a journal."""
    monkeypatch.setitem(engine.CLUSTERS, "ray", PipeCluster)
    monkeypatch.setenv(journal.VARIABLE, "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def make(**options):
        ours = {"engine": "ray", "mode": "traj", "workers": 2, "workers_per_host": 1}
        return small(**{**ours, "restart_backoff_s": 0.01, **options})

    return make
