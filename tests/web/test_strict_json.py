"""What is served as JSON is JSON: a number that is none is null, on every route."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import aiohttp
import numpy as np
import pytest

from aa2c.strict_json import strict_json
from tests.web.endpoint import RUN, endpoint

NAN, INF = math.nan, math.inf


def strictly(text: str) -> Any:
    """As a browser reads it."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"mean": NAN, "deep": [{"a": (INF, 1.5)}]}, {"mean": None, "deep": [{"a": [None, 1.5]}]}),
        ([-INF, np.float64("nan"), 0.0, True, None, "NaN"], [None, None, 0.0, True, None, "NaN"]),
        ({"1": 2}, {"1": 2}),
        (NAN, None),
    ],
)
def test_what_is_no_number_is_null(value, told):
    assert strictly(strict_json(value)) == told


async def test_every_route_is_strict():
    status = {
        "run": RUN | {"state": "finished", "error": NAN, "stall": INF},
        "returns": {"train": {"mean": NAN, "last": [1.0, -INF]}},
    }
    history = {"series": {"policy": [0.5, NAN]}, "marks": []}
    frames = {"values": [[NAN, 1.0]], "shape": [1, 2]}
    told = {}
    async with (
        endpoint(status, history, frames) as it,
        aiohttp.ClientSession(it.url) as client,
    ):
        for path in ("status", "history", "frames", "healthz", "readyz", "session"):
            async with client.get(f"/{path}") as answer:
                assert answer.content_type == "application/json"
                told[path] = strictly(await answer.text())
        async with client.get("/events") as answer:
            told["events"] = strictly((await answer.text()).removeprefix("data: "))
    assert told["status"]["returns"] == {"train": {"mean": None, "last": [1.0, None]}}
    assert told["events"] == told["status"]
    assert told["history"]["series"] == {"policy": [0.5, None]}
    assert told["frames"]["values"] == [[None, 1.0]]
    assert told["healthz"] == {"state": "finished", "error": None, "stall": None}
