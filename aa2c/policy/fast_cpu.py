"""Fast inference on the CPU: packed layers, and bfloat16 where the CPU computes it.

Acting evaluates the network for many small batches. Torch would convert weights, and lay them out
for its kernels, again for every one of them; here that is done once. The packed operators are those
that torch.compile puts in the place of layers. They are no public interface of torch: where a build
lacks them, layers compute the same as they are.

A convolutional trunk computes in float32 or bfloat16. Heads, log-probs, ratios and losses are
float32 in either case, and so are the weights that the optimizer steps (arXiv:1710.03740, section
3.1).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from aa2c.policy.encoders import Encoders, TakesRows
from aa2c.policy.layers import ResidualBlock, ScaledConv2d
from aa2c.policy.memory import State
from aa2c.policy.normalization import Units

if TYPE_CHECKING:
    from aa2c.policy.policy import Policy

CPU_FLAGS = ("amx_bf16", "avx512_bf16")
MOST_ERROR = 0.05  # L2 norm of the difference to float32, of the result's norm

Step = Callable[[Tensor], Tensor]
Heads = Callable[[Tensor], tuple[Tensor, Tensor]]


class PackedTrunk:
    """A trunk in some precision, without a gradient: of inputs [N, …] its features [N, F].

    `load` takes the weights of what can be packed over, as they are at the next call. All other
    layers are the trunk's own, computed as in learning.
    """

    def __init__(self, trunk: nn.Module, dtype: torch.dtype) -> None:
        self._dtype = dtype
        layers: list[nn.Module] = [trunk]
        if type(trunk) is nn.Sequential and not _has_hooks(trunk):
            layers = list(trunk)
        self._takes_rows = any(isinstance(layer, TakesRows) for layer in layers[:1])
        self._layers: list[tuple[nn.Module, bool]] = []  # and whether a ReLU is computed with it
        for before, layer in itertools.pairwise([None, *layers]):
            assert layer is not None
            if before is not None and _can_be_packed(before, dtype) and _is_relu(layer):
                self._layers[-1] = (before, True)
            else:
                self._layers.append((layer, False))
        self._steps: list[Step] = []

    def load(self) -> None:
        self._steps = []

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._dtype == torch.bfloat16):
            if not self._takes_rows:
                x = x.to(self._dtype)
            for step in self._steps:
                x = step(x)
            return x if self._steps else self._load_and_call(x)

    def _load_and_call(self, x: Tensor) -> Tensor:
        for layer, is_rectified in self._layers:
            step: Step = layer
            if type(layer) is ResidualBlock and not _has_hooks(layer):
                step = _add_to(PackedTrunk(layer.layers, self._dtype))
            elif type(layer) is Encoders and not _has_hooks(layer):
                step = _join(layer, self._dtype)
            elif _can_be_packed(layer, self._dtype):
                step = _pack(layer, "relu" if is_rectified else "none", x.to(self._dtype))
            x = step(x)
            self._steps.append(step)
        return x


class Acting:
    """One step of a policy without a gradient: outputs [N, P], values [N] and the next state.

    `load` takes the policy over as it is at the next call.
    """

    def __init__(self, network: Policy) -> None:
        self._network = network
        self._trunk = PackedTrunk(network.trunk, network.precision.dtype)
        self._units: Units | None = None
        self._heads: Heads | None = None

    def load(self) -> None:
        self._trunk.load()
        self._heads = None

    @torch.no_grad()
    def __call__(
        self, obs: Tensor, state: State = (), is_first: Tensor | None = None
    ) -> tuple[Tensor, Tensor, State]:
        if self._heads is None:
            self._units = self._network.units(obs)
            self._heads = self._join_heads() or self._network.heads
        features = self._trunk(self._network.prepare(obs, self._units)).float()
        if (memory := self._network.memory) is not None:
            assert is_first is not None
            hidden, state = memory(features.unsqueeze(0), state, is_first.unsqueeze(0))
            features = hidden.squeeze(0)
        outputs, values = self._heads(features)
        return outputs, values, state

    def _join_heads(self) -> Heads | None:
        """Both heads and the returns' mean and std in one layer, if each head is one."""
        policy, value = self._network.policy, self._network.value
        if type(policy) is not nn.Linear or type(value) is not nn.Linear:
            return None
        weight: Tensor = value.weight
        bias: Tensor = value.bias
        if (rms := self._network.return_rms) is not None:
            weight, bias = weight * rms.std, bias * rms.std + rms.mean
        weights, biases = torch.cat([policy.weight, weight]), torch.cat([policy.bias, bias])

        def heads(features: Tensor) -> tuple[Tensor, Tensor]:
            joined = functional.linear(features, weights, biases)
            return self._network.complete(joined[:, :-1]), joined[:, -1]

        return heads


@functools.cache
def has_packed_operators(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the operators, and they do that precision on this CPU."""
    with torch.random.fork_rng(devices=[]):  # layers draw their weights
        conv, linear = nn.Conv2d(1, 1, 1), nn.Linear(1, 1)
    try:
        with torch.no_grad():
            _pack(conv, "relu", torch.ones(1, 1, 1, 1).to(dtype))
            _pack(linear, "none", torch.ones(1, 1).to(dtype))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return True


def _has_hooks(layer: nn.Module) -> bool:
    return bool(layer._forward_pre_hooks or layer._forward_hooks)


def _is_relu(layer: nn.Module) -> bool:
    return type(layer) is nn.ReLU and not _has_hooks(layer)


def _add_to(inner: PackedTrunk) -> Step:
    """What a residual block computes."""
    return lambda x: x + inner(x)


def _join(encoders: Encoders, dtype: torch.dtype) -> Step:
    """What encoders compute side by side, each of them packed."""
    vector = None if encoders.vector is None else PackedTrunk(encoders.vector, torch.float32)
    images = [PackedTrunk(encoder, dtype) for encoder in encoders.images]
    return lambda rows: encoders.join(rows, vector, images)


def _can_be_packed(layer: nn.Module, dtype: torch.dtype) -> bool:
    """Only torch's own layers, as they are; subclasses and hooks may compute something else."""
    if _has_hooks(layer) or not has_packed_operators(dtype):
        return False
    if type(layer) in (nn.Conv2d, ScaledConv2d):
        return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


def _pack(layer: nn.Module, activation: str, x: Tensor) -> Step:
    """The layer in the precision of `x`, and for as many inputs as it has."""
    operators, dtype = torch.ops.mkldnn, x.dtype
    bias = None if layer.bias is None else layer.bias.to(dtype)
    more: tuple[Any, ...] = (activation, [], "")
    if isinstance(layer, nn.Linear):
        packed = operators._reorder_linear_weight(layer.weight.to(dtype), x.shape[0])
        return lambda x: operators._linear_pointwise(x.to(dtype), packed, bias, *more)
    weight = layer.scaled_weight if isinstance(layer, ScaledConv2d) else layer.weight
    sizes = (layer.padding, layer.stride, layer.dilation, layer.groups)
    packed = operators._reorder_convolution_weight(weight.to(dtype), *sizes, x.shape)
    return lambda x: operators._convolution_pointwise(x.to(dtype), packed, bias, *sizes, *more)


Precision = Literal["auto", "float32", "bfloat16"]


class ChosenPrecision(NamedTuple):
    """A precision, and why it was taken."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def choose_precision(wanted: Precision) -> ChosenPrecision:
    """What --precision means on this CPU. bfloat16 is taken only if it computes rightly here."""
    if wanted == "float32":
        return ChosenPrecision(torch.float32, "asked for")
    flags = [flag for flag in CPU_FLAGS if flag in _cpu_flags()]
    if wanted == "auto" and not flags:
        return ChosenPrecision(torch.float32, f"the CPU has none of {', '.join(CPU_FLAGS)}")
    error = self_test()
    if not error <= MOST_ERROR:
        return ChosenPrecision(
            torch.float32, f"bfloat16 is wrong here: {error:.0%} from float32 in the self-test"
        )
    why = "asked for" if wanted == "bfloat16" else f"the CPU has {', '.join(flags)}"
    return ChosenPrecision(torch.bfloat16, f"{why}; {error:.1%} from float32 in the self-test")


@functools.cache
def _cpu_flags() -> frozenset[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return frozenset(word for line in lines if line.startswith("flags") for word in line.split())


@functools.cache
def self_test() -> float:
    """Largest relative error of features and gradients of some convolutions in bfloat16.

    In learning, and as they are packed for acting. Some builds have had convolutions that were
    wrong for some shapes: these are the networks' own, with batches as in acting and learning.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Sequential(
            nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
            nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 7 * 7, 64),
        )  # fmt: skip
        obs = torch.rand(24, 4, 84, 84).contiguous(memory_format=torch.channels_last)
    errors = [0.0]
    for rows in (1, len(obs)):
        plain = _evaluate(layers, obs[:rows], torch.float32)
        half = _evaluate(layers, obs[:rows], torch.bfloat16)
        packed = PackedTrunk(layers, torch.bfloat16)(obs[:rows]).float()
        errors += [
            float((ours - exact).norm() / exact.norm())
            for ours, exact in zip([*half, packed], [*plain, plain[0]], strict=True)
        ]
    # A comparison with NaN is False, so max() would lose it.
    return float(torch.tensor(errors).max())


def _evaluate(layers: nn.Module, obs: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Features and the gradients of their squares' sum."""
    features = evaluate_in(dtype, layers, obs)
    gradients = torch.autograd.grad(features.square().sum(), list(layers.parameters()))
    return [features.detach(), *gradients]


def evaluate_in(dtype: torch.dtype, layers: nn.Module, inputs: Tensor) -> Tensor:
    """layers(inputs) in float32, computed in that precision on float32 weights."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        outputs: Tensor = layers(inputs)
    return outputs.float()
