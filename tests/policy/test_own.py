"""Networks of a user's own: trunks on parts, whole policies, their state, and what is said of misfits."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

from aa2c.config.config import Config
from aa2c.envs.plain import spec_of
from aa2c.errors import StartError
from aa2c.modes.mode import MODES
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy
from tests.checkpoints.spaces import ACTIONS
from tests.modes.fake_port import SmallMode, assert_it_learns_and_resumes, forever
from tests.policy.test_encoders import rows_of, samples

HERE = "tests.policy.own_policies:"
VECTOR = spaces.Box(-1, 1, (4,))
PARTS = spaces.Dict(
    image=spaces.Box(0, 255, (6, 7, 1)),
    more=spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2))),
)
BYTES = spaces.Dict(
    image=spaces.Box(0, 255, (6, 7, 1), "uint8"),
    more=spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2))),
)
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def policy_for(name, obs=VECTOR, actions=ACTIONS[0], **options):
    torch.manual_seed(0)
    spec = spec_of(obs, actions)
    policy = make_policy(Config(network=HERE + name, **options), spec)
    FlatParameters(policy)
    return policy, spec


@pytest.mark.parametrize("obs_scale", [0.0, 510.0])
@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_a_trunk_gets_parts_by_name_as_scaled_floats(memory, obs_scale):
    policy, spec = policy_for("Parts", BYTES, memory=memory, memory_size=5, obs_scale=obs_scale)
    seen = samples(BYTES, 4)
    rows = rows_of(spec, seen)
    begins = torch.ones(4, dtype=torch.bool)
    with torch.no_grad():
        acted = policy.acting()(rows, policy.initial_state(4), begins)[:2]
    learned = policy(rows)
    for one, other in zip(acted, learned, strict=True):
        torch.testing.assert_close(one, other.detach(), **NEAR)
    parts = policy.trunk[:2](rows)
    images = torch.stack([torch.from_numpy(each["image"]) for each in seen])
    torch.testing.assert_close(parts["image"], images / (obs_scale or 255))
    assert parts["more"][1].tolist() == [each["more"][1].tolist() for each in seen]
    sum(part.square().sum() for part in learned).backward()
    assert all(parameter.grad.any() for parameter in policy.trunk.parameters())


@pytest.mark.parametrize("norm_returns", [True, False])
@pytest.mark.parametrize("actions", ACTIONS, ids=str)
def test_a_whole_policy_has_the_outputs_of_any_actions(actions, norm_returns):
    policy, spec = policy_for("Policy", actions=actions, mode="traj", norm_returns=norm_returns)
    assert policy.memory is None
    obs = torch.randn(5, 4)
    with torch.no_grad():
        acted, learned = policy.acting()(obs)[:2], policy(obs)
    for one, other in zip(acted, learned, strict=True):
        torch.testing.assert_close(one, other, **NEAR)
    distribution, values, _ = policy.evaluate(obs)
    assert distribution.mode().shape == (5, *spec.actions.leaf.shape)
    own = policy.trunk.module
    torch.testing.assert_close(values, own(obs)[1].squeeze(1))
    policy.observe_returns(torch.arange(9.0))
    torch.testing.assert_close(policy(obs)[1], own(obs)[1].squeeze(1))
    (distribution.entropy().sum() + distribution.log_prob(distribution.mode()).sum()).backward()


@pytest.mark.parametrize(("name", "obs"), [("Remembers", VECTOR), ("RemembersParts", BYTES)])
def test_a_state_is_carried_through_steps_and_forgotten_at_resets(name, obs):
    policy, spec = policy_for(name, obs, memory="own", memory_size=6)
    rows = rows_of(spec, samples(obs, 12)) if spec.obs else torch.randn(12, 4)
    steps = rows.view(4, 3, -1)
    begins = torch.tensor([[1, 1, 1], [0, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
    state = (torch.randn(3, 6),)
    with torch.no_grad():
        _, values, after = policy.evaluate(rows, state, begins)
        act, own = policy.acting(), state[0]
        for t in range(4):
            outputs, acted, state = act(steps[t], state, begins[t])
            torch.testing.assert_close(acted, values.view(4, 3)[t], **NEAR)
            own = own * ~begins[t].unsqueeze(1)
            seen = policy.memory.see(policy.trunk(steps[t]).float())
            direct, value, own = policy.memory.module(seen, own)
            torch.testing.assert_close(outputs, direct, **NEAR)
            torch.testing.assert_close(acted, value, **NEAR)
    torch.testing.assert_close(after[0], own, **NEAR)
    assert policy.initial_state(2)[0].shape == (2, 6)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_learns_with_an_own_state_and_its_producer_resumes(mode):
    config = Config(
        env="tests.envs.custom_env:Counter-v0", mode=mode, num_envs=3, num_steps=8, memory="own",
        memory_size=5, network=HERE + "Remembers",
    )  # fmt: skip
    assert_it_learns_and_resumes(config)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("deep_features", {}, r"gives a tensor of shape \(2, 3, 4\).*features \[N, F\]"),
        ("one_row", {}, r"gives a tensor of shape \(1, 4\)"),
        ("two_tensors", {}, "gives 2 values"),
        ("narrow", {}, r"shape \(2, 3\) as outputs .* shape \(2, 4\)"),
        ("no_values", {}, "a tensor of shape .*without a state gives a tuple of outputs, values"),
        ("many_values", {}, r"shape \(2, 2\) as values .* shape \(2,\)"),
        ("no_state", {"memory": "own"}, "with a state gives a tuple of outputs, values, state"),
        ("wide_state", {"memory": "own"}, r"\(2, 40\) as state .* shape \(2, 256\)"),
        ("wide_state", {}, "memory_size: it needs --memory own"),
        ("Policy", {"memory": "gru"}, "--memory own instead of --memory gru"),
        ("raises", {}, "RuntimeError: no such layer"),
        ("NARROW", {}, "TypeError: .*not.* callable"),
    ],
)
def test_what_does_not_fit_is_told_in_a_sentence(name, options, says):
    with pytest.raises(StartError, match=f"^--network {HERE}{name}[ :].*({says})") as caught:
        policy_for(name, **options)
    assert "\n" not in str(caught.value)


def test_a_state_of_its_own_needs_a_policy_of_its_own():
    for network in ("auto", HERE + "Parts"):
        with pytest.raises(StartError, match="--memory own needs a --network of your own"):
            make_policy(Config(network=network, memory="own"), spec_of(PARTS, ACTIONS[0]))


@pytest.mark.parametrize("mode", MODES)
def test_indices_and_masks_among_the_buffers_stay_what_they_are_and_are_alike_everywhere(mode):
    network = "tests.policy.trunks:make_shuffled"
    with SmallMode(Config(mode=mode, network=network, num_envs=2, num_steps=4, seed=7)) as small:
        torch.manual_seed(1)
        small.producer.produce(small.port)
        small.consumer.consume(small.port.records, 1e-3, forever)
        orders = [
            buffer
            for policy in (small.producer._policy, small.network)
            for name, buffer in policy.named_buffers()
            if name.endswith("order")
        ]
        assert orders[0].dtype == torch.int64
        assert torch.equal(*orders)
