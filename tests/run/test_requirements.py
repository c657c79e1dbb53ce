from __future__ import annotations

import importlib.util

import pytest

from aa2c import Orchestrator
from aa2c.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "package", "extra"),
    [
        ({"track": ("tensorboard",)}, "tensorboardX", "tensorboard"),
        ({"track": ("wandb",)}, "wandb", "wandb"),
        ({"engine": "ray"}, "ray", "ray"),
    ],
)
async def test_a_missing_package_is_refused_before_anything_starts(
    small, options, package, extra, monkeypatch, tmp_path
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(ConfigError, match=rf"needs .* {package}: pip install 'aa2c\[{extra}\]'"):
        await Orchestrator(small(**options)).start()
    assert not (tmp_path / "runs").exists()


async def test_a_cluster_without_a_token_is_refused_before_anything_starts(
    small, monkeypatch, tmp_path
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    config = small(engine="ray", address="127.0.0.1:6379")
    with pytest.raises(ConfigError, match=r"needs the cluster's token: .* --ray-insecure"):
        await Orchestrator(config).start()
    assert not (tmp_path / "runs").exists()
