"""Options without effect on a policy are named, with what they would need, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from aa2c.config.config import Config
from aa2c.envs.plain import spec_of
from aa2c.policy.network import make_policy
from aa2c.policy.unused import without_effect

VECTOR, IMAGE = spaces.Box(-1, 1, (3,)), spaces.Box(0, 255, (12, 12, 3), np.uint8)
IMAGES, BOTH = spaces.Dict(a=IMAGE, b=IMAGE), spaces.Dict(a=IMAGE, b=VECTOR)
CHOICE, REALS = spaces.Discrete(2), spaces.Dict(a=spaces.Discrete(2), b=VECTOR)
OWN = "tests.policy.own_policies:Policy"


@pytest.mark.parametrize(
    ("options", "seen", "done", "need"),
    [
        ({"action_bounds": "tanh"}, VECTOR, CHOICE, "actions of a Box"),
        ({"action_bounds": "tanh"}, VECTOR, REALS, ""),
        ({"precision": "bfloat16"}, VECTOR, CHOICE, "a trunk with convolutions"),
        ({"precision": "bfloat16", "network": "mlp"}, IMAGE, CHOICE, "a trunk with convolutions"),
        ({"precision": "float32"}, IMAGE, CHOICE, ""),
        ({"precision": "float32"}, BOTH, CHOICE, ""),
        ({"hidden_sizes": (8,), "network": "minatar"}, IMAGE, CHOICE, "--network mlp"),
        ({"hidden_sizes": (8,)}, IMAGE, CHOICE, "--network mlp"),
        ({"hidden_sizes": (8,), "network": OWN}, VECTOR, CHOICE, "--network mlp"),
        ({"hidden_sizes": (8,), "network": "mlp"}, IMAGES, CHOICE, ""),
        ({"hidden_sizes": (8,), "network": "minatar"}, BOTH, CHOICE, ""),
        ({"hidden_sizes": (8,)}, IMAGES, CHOICE, ""),
        ({"hidden_sizes": (8,), "memory": "gru"}, IMAGES, CHOICE, "--network mlp"),
        ({"obs_scale": 9.0}, BOTH, CHOICE, ""),
        ({"obs_scale": 9.0}, spaces.Dict(a=VECTOR), CHOICE, "an image of bytes"),
        ({"obs_scale": 9.0}, VECTOR, CHOICE, ""),
        ({"norm_obs": True}, IMAGES, CHOICE, "observations beside images"),
        ({"norm_obs": True}, BOTH, CHOICE, ""),
        ({}, VECTOR, CHOICE, ""),
    ],
    ids=str,
)
def test_what_has_no_effect_is_named_with_what_it_needs(options, seen, done, need):
    config, spec = Config(**options), spec_of(seen, done)
    expected = {next(iter(options)): need} if need else {}
    assert without_effect(config, spec, make_policy(config, spec)) == expected


@pytest.mark.parametrize("network", ["auto", "minatar", "mlp"])
@pytest.mark.parametrize("memory", ["none", "gru"])
@pytest.mark.parametrize("seen", [VECTOR, IMAGE, IMAGES, BOTH], ids=str)
def test_hidden_sizes_are_named_where_the_network_is_the_same_without(network, memory, seen):
    if seen is VECTOR and network == "minatar":
        return  # which cannot be made
    config, other = (
        Config(network=network, memory=memory, hidden_sizes=sizes) for sizes in ((8,), (9,))
    )
    spec = spec_of(seen, CHOICE)
    policy = make_policy(config, spec)
    shapes, others = (
        [p.shape for p in it.parameters()] for it in (policy, make_policy(other, spec))
    )
    assert ("hidden_sizes" in without_effect(config, spec, policy)) == (shapes == others)
