from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aa2c.config.config import Config
from aa2c.envs.spec import Discrete, EnvSpec
from aa2c.errors import ConfigError, StartError
from aa2c.policy.flat import SHARD_ALIGNMENT, FlatParameters
from aa2c.policy.network import make_policy

EXAMPLES = str(Path(__file__).parent.parent.parent / "examples")
VECTOR = EnvSpec((4,), "float32", Discrete(2))
ATARI = EnvSpec((4, 84, 84), "uint8", Discrete(6))


def network_for(spec, **options):
    torch.manual_seed(0)
    return make_policy(Config(**options), spec)


@pytest.mark.parametrize(
    ("spec", "convolutional"),
    [
        (EnvSpec((4, 84, 84), "uint8", Discrete(6)), True),
        (EnvSpec((96, 96, 3), "uint8", Discrete(5)), True),
        (EnvSpec((50, 40, 3), "uint8", Discrete(18)), True),
        (EnvSpec((3, 36, 36), "uint8", Discrete(3)), True),
        (EnvSpec((10, 10, 3), "uint8", Discrete(3)), True),
        (EnvSpec((10, 10, 10), "bool", Discrete(3)), True),
        (EnvSpec((20, 35, 3), "uint8", Discrete(3)), True),
        (EnvSpec((84, 84), "uint8", Discrete(3)), True),
        (EnvSpec((3, 84, 84), "float32", Discrete(2)), True),
        (EnvSpec((8, 8), "uint8", Discrete(3)), False),
        (EnvSpec((84, 84), "float32", Discrete(3)), False),
        (EnvSpec((2, 2, 3), "uint8", Discrete(3)), False),
        (EnvSpec((4,), "float32", Discrete(2)), False),
        (EnvSpec((7,), "float64", Discrete(3)), False),
        (EnvSpec((5,), "int64", Discrete(1)), False),
        (EnvSpec((128,), "uint8", Discrete(9)), False),
        (EnvSpec((3, 5), "float32", Discrete(2)), False),
    ],
    ids=str,
)
def test_auto_chooses_a_network_that_maps_observations_to_logits_and_values(spec, convolutional):
    network = network_for(spec)
    assert any(isinstance(m, nn.Conv2d) for m in network.modules()) is convolutional
    obs = torch.from_numpy(np.ones((3, *spec.obs_shape), spec.obs_dtype))
    untouched = obs.clone()
    logits, values = network(obs)
    assert logits.shape == (3, spec.actions.n)
    assert values.shape == (3,)
    assert logits.dtype == values.dtype == torch.float32
    assert torch.equal(obs, untouched)


@pytest.mark.parametrize(
    ("dtype", "obs_scale", "divisor"),
    [("uint8", 0, 255), ("float32", 0, 1), ("int64", 0, 1), ("float32", 8, 8), ("uint8", 2, 2)],
)
def test_observations_are_divided_by_obs_scale(dtype, obs_scale, divisor):
    spec = EnvSpec((6,), dtype, Discrete(3))
    scaled = network_for(spec, obs_scale=obs_scale)
    plain = network_for(EnvSpec((6,), "float32", Discrete(3)))
    obs = torch.arange(12).view(2, 6).to(getattr(torch, dtype))
    untouched = obs.clone()
    for one, other in zip(scaled(obs), plain(obs.float() / divisor), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.equal(obs, untouched)


@pytest.mark.parametrize(
    ("shape", "units"),
    [((36, 99, 3), 512), ((35, 99, 3), 256), ((20, 20), 256), ((19, 40, 3), 128), ((3, 3, 9), 128)],
    ids=str,
)
def test_auto_takes_the_largest_convolutions_that_fit_an_image(shape, units):
    network = network_for(EnvSpec(shape, "uint8", Discrete(2)))
    assert network.policy.in_features == units


@pytest.mark.parametrize("kind", ["a3c", "nature", "document", "impala", "minatar"])
def test_images_with_channels_last_see_what_the_same_image_channels_first_would_show(kind):
    first = network_for(EnvSpec((3, 40, 50), "uint8", Discrete(4)), network=kind)
    last = network_for(EnvSpec((40, 50, 3), "uint8", Discrete(4)), network=kind)
    obs = torch.randint(256, (2, 3, 40, 50)).to(torch.uint8)
    torch.testing.assert_close(first(obs), last(obs.permute(0, 2, 3, 1)))


@pytest.mark.parametrize(
    ("spec", "kind"),
    [(VECTOR, "mlp"), *((ATARI, k) for k in ("a3c", "nature", "document", "impala", "minatar"))],
    ids=str,
)
def test_layers_are_orthogonal_with_a_small_last_policy_layer_and_no_bias(spec, kind):
    network = network_for(spec, network=kind)
    layers = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    last_policy = [m for m in network.policy.modules() if isinstance(m, nn.Linear)][-1]
    last_value = [m for m in network.value.modules() if isinstance(m, nn.Linear)][-1]
    gains = {last_policy: 0.01, last_value: 1.0}
    for layer in layers:
        weight = layer.weight.detach().flatten(1)
        square = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        gain = gains.get(layer, math.sqrt(2))
        torch.testing.assert_close(square / gain**2, torch.eye(len(square)), atol=1e-4, rtol=0)
        assert not layer.bias.any()


def test_mlp_has_the_hidden_sizes_asked_for_and_shares_nothing_between_policy_and_value():
    network = network_for(VECTOR, hidden_sizes=(7, 5, 3))
    for tower, outputs in ((network.policy, 2), (network.value, 1)):
        linear = [m for m in tower.modules() if isinstance(m, nn.Linear)]
        assert [m.out_features for m in linear] == [7, 5, 3, outputs]
    network(torch.ones(1, 4))[1].backward()
    assert all(p.grad is None for p in network.policy.parameters())


@pytest.mark.parametrize("shape", [(3, 35, 84), (20, 20, 3), (35, 84), (4,)])
def test_nature_refuses_what_it_cannot_see_and_says_what_to_do(shape):
    with pytest.raises(StartError) as caught:
        network_for(EnvSpec(shape, "uint8", Discrete(2)), network="nature")
    for word in ("--network nature", "36", str(shape), "--network mlp"):
        assert word in str(caught.value)


def halved(side):
    """Outputs of a pooling of 3 pixels, stride 2, padding 1."""
    return (side + 2 - 3) // 2 + 1


@pytest.mark.parametrize(
    ("shape", "channels", "sides"),
    [((4, 84, 84), 4, (84, 84)), ((8, 11, 3), 3, (8, 11)), ((1, 9, 8), 1, (9, 8))],
    ids=str,
)
def test_impala_has_the_parameters_of_the_paper(shape, channels, sides):
    network = network_for(EnvSpec(shape, "uint8", Discrete(5)), network="impala")
    expected, inputs = 0, channels
    for outputs in (16, 32, 32):
        expected += inputs * outputs * 9 + outputs + 4 * (outputs * outputs * 9 + outputs)
        inputs, sides = outputs, tuple(map(halved, sides))
    assert shape != (4, 84, 84) or sides == (11, 11)
    expected += 32 * sides[0] * sides[1] * 256 + 256 + 256 * 5 + 5 + 256 + 1
    assert sum(p.numel() for p in network.parameters()) == expected
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 15


def impala_by_hand(weights, obs):
    """IMPALA's figure 3, right, literally; `weights` in the order of the figure."""
    remaining = iter(weights)

    def conv(x):
        return F.conv2d(x, next(remaining), next(remaining), stride=1, padding=1)

    x = obs.float() / 255
    for _ in range(3):
        x = F.max_pool2d(conv(x), 3, stride=2, padding=1)
        for _ in range(2):
            before = x.clone()
            x = conv(torch.relu(conv(torch.relu(before.clone())))) + before
    x = torch.relu(
        F.linear(torch.relu(x).permute(0, 2, 3, 1).flatten(1), next(remaining), next(remaining))
    )
    policy = F.linear(x, next(remaining), next(remaining))
    value = F.linear(x, next(remaining), next(remaining))
    assert next(remaining, None) is None
    return policy, value[:, 0]


@pytest.mark.parametrize("shape", [(4, 84, 84), (3, 17, 8)], ids=str)
def test_impala_computes_what_the_paper_draws_and_every_parameter_learns(shape):
    network = network_for(
        EnvSpec(shape, "uint8", Discrete(5)), network="impala", precision="float32"
    )
    flat = FlatParameters(network)
    noise = torch.randn(flat.num_params, generator=torch.Generator().manual_seed(1))
    flat.vector += 0.02 * noise  # so that biases matter
    by_figure = [network.trunk, network.policy, network.value]
    weights = [p.detach().clone().requires_grad_() for m in by_figure for p in m.parameters()]
    obs = torch.randint(256, (3, *shape), generator=torch.Generator().manual_seed(2)).byte()
    ours, theirs = network(obs), impala_by_hand(weights, obs)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    for logits, values in (ours, theirs):
        (logits.square().sum() + values.sum()).backward()
    parameters = [p for m in by_figure for p in m.parameters()]
    for parameter, weight in zip(parameters, weights, strict=True):
        rounding = 1e-4 * float(weight.grad.abs().max())
        torch.testing.assert_close(parameter.grad, weight.grad, rtol=1e-3, atol=rounding)
        assert parameter.grad.abs().max() > 0
    assert flat.grad[: sum(w.numel() for w in weights)].count_nonzero() > 0


def test_impala_learns_through_the_flat_vector():
    network = network_for(EnvSpec((1, 8, 8), "uint8", Discrete(2)), network="impala")
    flat = FlatParameters(network)
    obs = torch.randint(256, (16, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    wanted = torch.arange(16) % 2
    optimizer = torch.optim.Adam([flat.vector], 1e-3)
    for _ in range(60):
        flat.grad.zero_()
        loss = F.cross_entropy(network(obs)[0], wanted)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert torch.equal(network(obs)[0].argmax(-1), wanted)


@pytest.mark.parametrize("shape", [(3, 7, 84), (20, 7, 3), (7, 84), (4,)])
def test_impala_refuses_what_it_cannot_see_and_says_what_to_do(shape):
    with pytest.raises(StartError) as caught:
        network_for(EnvSpec(shape, "uint8", Discrete(2)), network="impala")
    for word in ("--network impala", "8", str(shape), "--network mlp"):
        assert word in str(caught.value)


def test_parameters_are_views_of_one_vector_whose_length_is_padded_with_zeros():
    network = network_for(VECTOR)
    before = [p.detach().clone() for p in network.parameters()]
    flat = FlatParameters(network)
    used = sum(p.numel() for p in network.parameters())
    assert used % SHARD_ALIGNMENT
    assert flat.num_params == math.ceil(used / SHARD_ALIGNMENT) * SHARD_ALIGNMENT
    assert flat.vector.shape == flat.grad.shape == flat.numpy.shape == (flat.num_params,)
    assert not flat.vector[used:].any()
    assert torch.equal(flat.vector[:used], torch.cat([p.flatten() for p in before]))
    start = flat.vector.data_ptr()
    for parameter in network.parameters():
        assert parameter.data_ptr() == start
        start += parameter.numel() * 4
    flat.numpy[:] = np.arange(flat.num_params)
    joined = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert torch.equal(joined, torch.arange(used).float())


def test_gradients_accumulate_in_the_flat_gradient_in_the_parameters_order():
    network, twin = network_for(VECTOR), network_for(VECTOR)
    flat = FlatParameters(network)
    obs = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))

    def loss(net):
        logits, values = net(obs)
        return logits.square().sum() + values.sum()

    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss(twin), twin.parameters())])
    for times in (1, 2):
        loss(network).backward()
        torch.testing.assert_close(flat.grad[: len(expected)], times * expected)
    assert not flat.grad[len(expected) :].any()


def test_writing_to_the_numpy_vector_changes_what_forward_computes():
    network = network_for(VECTOR)
    flat = FlatParameters(network)
    obs = torch.ones(1, 4)
    before = network(obs)[1].item()
    flat.numpy[:] += 0.1
    assert network(obs)[1].item() != before
    flat.numpy[:] = 0
    assert network(obs)[1].item() == 0


def test_a_network_keeps_its_outputs_and_state_dict_when_it_is_flattened():
    network, twin = network_for(VECTOR), network_for(VECTOR)
    FlatParameters(network)
    obs = torch.randn(3, 4)
    assert torch.equal(network(obs)[0], twin(obs)[0])
    assert all(torch.equal(a, b) for a, b in zip(
        network.state_dict().values(), twin.state_dict().values(), strict=True
    ))  # fmt: skip


@pytest.mark.parametrize(("max_norm", "factor"), [(0.5, 0.5 / 5), (100.0, 1), (0.0, 1)])
def test_clipping_scales_to_the_norm_and_returns_the_norm_before(max_norm, factor):
    flat = FlatParameters(network_for(VECTOR))
    flat.grad[:2] = torch.tensor([3.0, 4.0])
    assert flat.clip_grad_norm(max_norm) == pytest.approx(5)
    torch.testing.assert_close(flat.grad[:2], factor * torch.tensor([3.0, 4.0]))


def test_a_network_of_one_s_own_gets_the_two_heads(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    network = network_for(VECTOR, network="own_network:make_trunk")
    logits, values = network(torch.ones(5, 4))
    assert (logits.shape, values.shape) == ((5, 2), (5,))
    assert any(isinstance(module, nn.LayerNorm) for module in network.modules())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such_module:make", "No module named 'no_such_module'"),
        ("own_network:no_such_function", "has no attribute"),
        ("math:sqrt", "TypeError"),
        ("builtins:len", "makes 1, and not a torch.nn.Module"),
    ],
)
def test_a_network_of_one_s_own_that_does_not_work_is_told_in_a_sentence(name, why, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    with pytest.raises(StartError, match=f"--network {name}.*{why}"):
        network_for(VECTOR, network=name)


@pytest.mark.parametrize("name", ["", "nope", "a:b:c"])
def test_a_network_that_does_not_exist_is_refused(name):
    with pytest.raises(ConfigError, match="--network"):
        Config(network=name)
