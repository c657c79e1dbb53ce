"""bfloat16 beside float32: chosen only where it is right, and near enough to learn with."""

from __future__ import annotations

import contextlib

import pytest
import torch

from aa2c.config.config import Config
from aa2c.envs.spec import Discrete, EnvSpec
from aa2c.policy import fast_cpu
from aa2c.policy.fast_cpu import MOST_ERROR, choose_precision, self_test
from aa2c.policy.flat import FlatParameters
from aa2c.policy.network import make_policy

ATARI = EnvSpec((4, 84, 84), "uint8", Discrete(6), is_stacked=True)
VECTOR = EnvSpec((4,), "float32", Discrete(2))


@pytest.fixture
def cpu(monkeypatch):
    """Let the CPU have these flags, and bfloat16 this error in the self-test."""

    def be(*flags, error=0.01):
        monkeypatch.setattr(fast_cpu, "_cpu_flags", lambda: frozenset(flags))
        monkeypatch.setattr(fast_cpu, "self_test", lambda: error)

    return be


@pytest.mark.parametrize(
    ("wanted", "flags", "error", "expected", "reason"),
    [
        ("float32", ["amx_bf16"], 0.0, torch.float32, "asked for"),
        ("auto", ["avx2"], 0.0, torch.float32, "none of amx_bf16"),
        ("auto", ["amx_bf16"], 0.01, torch.bfloat16, "has amx_bf16"),
        ("auto", ["avx512_bf16"], 0.01, torch.bfloat16, "has avx512_bf16"),
        ("auto", ["amx_bf16"], 0.6, torch.float32, "wrong here: 60%"),
        ("auto", ["amx_bf16"], float("nan"), torch.float32, "wrong here"),
        ("bfloat16", [], 0.01, torch.bfloat16, "asked for"),
        ("bfloat16", [], 0.6, torch.float32, "wrong here"),
    ],
)
def test_bfloat16_is_chosen_where_the_cpu_has_it_and_it_is_right(
    cpu, wanted, flags, error, expected, reason
):
    cpu(*flags, error=error)
    choice = choose_precision(wanted)
    assert choice.dtype == expected
    assert reason in choice.reason


def test_the_self_test_passes_here_and_would_see_a_wrong_convolution(monkeypatch):
    assert 0 < self_test() <= MOST_ERROR
    right = fast_cpu.evaluate_in

    def wrong(dtype, layers, inputs):
        outputs = right(dtype, layers, inputs)
        return outputs if dtype == torch.float32 or len(inputs) == 1 else outputs.roll(1, 0)

    with monkeypatch.context() as patch:
        patch.setattr(fast_cpu, "evaluate_in", wrong)
        assert self_test.__wrapped__() > MOST_ERROR
    packed = fast_cpu.PackedTrunk.__call__
    monkeypatch.setattr(fast_cpu.PackedTrunk, "__call__", lambda *args: 1.1 * packed(*args))
    assert self_test.__wrapped__() > MOST_ERROR


def test_the_self_test_draws_no_random_numbers_of_others():
    fast_cpu.has_packed_operators.cache_clear()
    torch.manual_seed(3)
    self_test.__wrapped__()
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("kind", ["a3c", "nature", "document", "impala"])
def test_a_network_in_bfloat16_is_near_the_same_in_float32_and_gives_float32(kind):
    networks, flats = [], []
    for name in ("float32", "bfloat16"):
        torch.manual_seed(0)
        network = make_policy(Config(network=kind, precision=name, norm_obs=True), ATARI)
        networks.append(network)
        flats.append(FlatParameters(network))
    exact, half = networks
    assert half.precision.dtype == torch.bfloat16
    obs = torch.randint(256, (4, 4, 84, 84), dtype=torch.uint8)
    results = [network(obs) for network in networks]
    for one, other in zip(*results, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
    for logits, values in results:
        (logits.square().sum() + values.sum()).backward()
    assert torch.nn.functional.cosine_similarity(flats[0].grad, flats[1].grad, dim=0) > 0.99
    with torch.inference_mode():
        acted = half.acting()(obs)[:2]
    for one, other in zip(results[1], acted, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.05)
    assert half.state_dict().keys() == exact.state_dict().keys()


def acting_and_learning(network, obs):
    """Logits and values as one tensor [N, A+1], of what acts and of the network itself."""
    with torch.no_grad():
        both = network.acting()(obs)[:2], network(obs)
    return [torch.cat([logits, values.unsqueeze(-1)], dim=1) for logits, values in both]


@pytest.mark.parametrize("has_operators", [True, False])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("bfloat16", 0.05)])
@pytest.mark.parametrize("norm_obs", [True, False])
@pytest.mark.parametrize(
    "kind",
    ["a3c", "nature", "document", "impala"]
    + [f"tests.policy.trunks:{name}" for name in ("make", "make_others", "make_mixed")],
)
def test_what_acts_computes_what_learns(kind, norm_obs, dtype, error, has_operators, monkeypatch):
    """With torch's packed operators and without, for any number of rows, and on later weights."""
    if not has_operators:
        monkeypatch.setattr(fast_cpu, "has_packed_operators", lambda dtype: False)
    config = Config(
        mode="traj", network=kind, precision=dtype, norm_obs=norm_obs, norm_returns=True
    )
    torch.manual_seed(0)
    network = make_policy(config, ATARI)
    FlatParameters(network)
    with torch.no_grad():  # logits as far apart as in a policy that has learned
        [*network.policy.modules()][-1].weight.mul_(100)
    network.observe(torch.randint(256, (9, 4, 84, 84), dtype=torch.uint8))
    network.observe_returns(torch.arange(9.0))
    obs = torch.randint(256, (5, 4, 84, 84), dtype=torch.uint8)
    for rows in (5, 1, 3):
        act, learn = acting_and_learning(network, obs[:rows])
        assert act.dtype == torch.float32
        assert (act - learn).norm() < error * learn.norm()
        with torch.no_grad():
            network.policy.apply(lambda layer: [p.mul_(2) for p in layer.parameters(recurse=False)])
            next(network.trunk.parameters()).mul_(1.5)


def test_acting_is_on_the_weights_of_its_beginning_and_those_of_the_next_time():
    """Where layers can be packed: others compute with the weights that are there."""
    packs = fast_cpu.has_packed_operators(torch.bfloat16)  # not without AVX-512
    precision = "bfloat16" if packs else "float32"
    network = make_policy(Config(precision=precision, network="a3c"), ATARI)
    obs = torch.randint(256, (2, 4, 84, 84), dtype=torch.uint8)
    with torch.inference_mode():
        act = network.acting()
        before = act(obs)[1]
        with torch.inference_mode(False), torch.no_grad():
            network.trunk[1].weight.mul_(2)
        assert torch.equal(act(obs)[1], before)
    for grad_is_off in (torch.inference_mode(), torch.no_grad(), contextlib.nullcontext()):
        with grad_is_off:
            assert not torch.equal(network.acting()(obs)[1], before)


def test_what_has_no_convolutions_stays_in_float32():
    network = make_policy(Config(precision="bfloat16"), VECTOR)
    assert network.precision.dtype == torch.float32
    assert "no convolutions" in network.precision.reason
    obs = torch.rand(3, 4)
    with torch.inference_mode():
        acted = network.acting()(obs)[:2]
    assert all(torch.equal(a, b) for a, b in zip(acted, network(obs), strict=True))


def test_a_trunk_of_ones_own_with_layers_of_ours_gets_scaled_observations():
    network = make_policy(Config(network="tests.policy.trunks:make_mixed"), ATARI)
    obs = torch.full((1, 4, 84, 84), 255, dtype=torch.uint8)
    assert network.prepare(obs, None).max() == 1
