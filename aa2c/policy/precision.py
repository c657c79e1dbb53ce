"""Which arithmetic a convolutional trunk uses: float32, or bfloat16 where the CPU has it.

Heads, log probabilities, ratios and losses are float32 in either case, and so are the weights that
the optimizer steps (arXiv:1710.03740, section 3.1).
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from aa2c.policy.acting import PackedTrunk

CPU_FLAGS = ("amx_bf16", "avx512_bf16")
MOST_ERROR = 0.05  # L2 norm of the difference to float32, of the result's norm

Precision = Literal["auto", "float32", "bfloat16"]


class Choice(NamedTuple):
    """A precision, and why it was taken."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def choose_precision(wanted: Precision) -> Choice:
    """What --precision means on this CPU. bfloat16 is taken only if it computes rightly here."""
    if wanted == "float32":
        return Choice(torch.float32, "asked for")
    flags = [flag for flag in CPU_FLAGS if flag in _cpu_flags()]
    if wanted == "auto" and not flags:
        return Choice(torch.float32, f"the CPU has none of {', '.join(CPU_FLAGS)}")
    error = self_test()
    if not error <= MOST_ERROR:
        return Choice(
            torch.float32, f"bfloat16 is wrong here: {error:.0%} from float32 in the self-test"
        )
    why = "asked for" if wanted == "bfloat16" else f"the CPU has {', '.join(flags)}"
    return Choice(torch.bfloat16, f"{why}; {error:.1%} from float32 in the self-test")


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
