from __future__ import annotations

import pytest

from aa2c.config.config import Config
from aa2c.host.settings import Settings
from aa2c.shm.counters import run_row, table_bytes
from aa2c.shm.segment import Segment, name_prefix

CONFIG = Config(ent_coef=(0.1, 0.2), workers=2)


@pytest.fixture
def row():
    segment = Segment.create(name_prefix("settings") + "counters", table_bytes(2))
    segment.unlink()
    return run_row(segment)


def test_what_is_set_and_unset_is_seen_by_everyone(row):
    orchestrators, childs = Settings(CONFIG, row), Settings(CONFIG, row)
    orchestrators.set("ent_coef", 0.5)
    orchestrators.set("learning_rate", 0.25)
    for settings in (orchestrators, childs, Settings(CONFIG, row)):
        assert (settings.now().ent_coef, settings.now().learning_rate) == ((0.5,), 0.25)
    orchestrators.unset("ent_coef")
    assert (childs.now().ent_coef, childs.now().learning_rate) == ((0.1, 0.2), 0.25)
    orchestrators.unset("learning_rate")
    orchestrators.unset("clip_coef")
    for settings in (orchestrators, childs, Settings(CONFIG, row)):
        assert settings.now() == CONFIG
