from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from aa2c.strict_json import strict_json


def test_what_is_not_finite_is_null_however_deep_and_the_rest_is_as_it_was():
    document = {
        "a": [1.5, math.nan, (math.inf, "NaN")],
        "b": {"c": -math.inf},
        "d": None,
        "e": True,
    }
    read = json.loads(strict_json(document), parse_constant=pytest.fail)
    assert read == {"a": [1.5, None, [None, "NaN"]], "b": {"c": None}, "d": None, "e": True}
    assert strict_json({"path": Path("/x"), "n": math.nan}, default=str) == (
        '{"path": "/x", "n": null}'
    )
