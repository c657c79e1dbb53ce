"""Fixtures of the tests of modes."""

from __future__ import annotations

import pytest

from tests.modes.model_world import World, small


@pytest.fixture
def a_world():
    worlds = []

    def a_world(worker=0, **options):
        worlds.append(World(small(**options), worker))
        return worlds[-1]

    yield a_world
    for world in worlds:
        world.close()
