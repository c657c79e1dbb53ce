"""What the bridge says of a cluster."""

from __future__ import annotations

import pytest

from aa2c.host.cluster.bridge import too_large

MB = 10**6


@pytest.mark.parametrize(
    ("record", "params", "said"),
    [
        (39 * MB, 39 * MB, None),
        (41 * MB, 1 * MB, "a record has 41 MB, and the smallest object store of the cluster 80 MB"),
        (1 * MB, 41 * MB, "a set of parameters has 41 MB"),
    ],
    ids=["both fit twice", "a record does not", "parameters do not"],
)
def test_what_does_not_fit_twice_into_an_object_store_is_warned_of(record, params, said):
    found = too_large(record, params, 80 * MB)
    assert found.startswith(said) if said else found == ""
    assert ("--num-envs" in found) == (record > params)
