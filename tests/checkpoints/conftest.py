"""Fixtures of the tests of checkpoints."""

from __future__ import annotations

import pytest

from tests.checkpoints.written import write


@pytest.fixture
def two(tmp_path):
    """A directory with an older (seed 1) and a newer (seed 2) checkpoint."""
    return write(tmp_path, 100, seed=1), write(tmp_path, 2000, seed=2)
