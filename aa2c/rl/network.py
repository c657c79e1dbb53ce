"""Networks: observation -> policy logits and value, with all parameters in one flat vector.

The flat vector is what moves between processes: publishing, pulling and stepping the optimizer
are each one operation on it, and the layers' weights are views into it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aa2c.config import Config
from aa2c.errors import StartError
from aa2c.rl.envs import EnvSpec

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

SHARD_ALIGNMENT = 64  # parameters; keeps vectorised kernels free of remainders
NATURE_SMALLEST_SIDE = 36  # pixels that its three convolutions need


class ActorCritic(nn.Module):
    """`forward(obs)`: raw observations [N, …] -> policy logits [N, A], values [N]."""

    def __init__(
        self, policy: nn.Module, value: nn.Module, trunk: nn.Module, obs_scale: float
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.policy = policy
        self.value = value
        self._obs_scale = obs_scale

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        scaled = obs.float()
        if self._obs_scale != 1:
            scaled = scaled.div_(self._obs_scale) if scaled is not obs else obs / self._obs_scale
        features = self.trunk(scaled)
        return self.policy(features), self.value(features).squeeze(-1)


class _ChannelsFirst(nn.Module):
    """[N, H, W, C] -> [N, C, H, W] where the last dimension is the smallest."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def make_network(config: Config, spec: EnvSpec) -> ActorCritic:
    """The network of --network for an environment. Raises `StartError` if it does not fit."""
    obs_scale = config.obs_scale or (255.0 if spec.obs_dtype == "uint8" else 1.0)
    kind = config.network
    if kind == "auto":
        kind = "nature" if spec.is_image and _smallest_side(spec) >= NATURE_SMALLEST_SIDE else "mlp"
    if kind in ("nature", "document"):
        return _convolutional(kind, spec, obs_scale)
    return _mlp(config.hidden_sizes, spec, obs_scale)


def _smallest_side(spec: EnvSpec) -> int:
    return sorted(spec.obs_shape)[1]


def _mlp(hidden_sizes: Sequence[int], spec: EnvSpec, obs_scale: float) -> ActorCritic:
    """Separate tanh networks for policy and value (arXiv:2006.05990, section 3.2)."""

    def tower(outputs: int, last_gain: float) -> nn.Sequential:
        layers: list[nn.Module] = []
        inputs = math.prod(spec.obs_shape)
        for size in hidden_sizes:
            layers += [orthogonal(nn.Linear(inputs, size), math.sqrt(2)), nn.Tanh()]
            inputs = size
        return nn.Sequential(*layers, orthogonal(nn.Linear(inputs, outputs), last_gain))

    return ActorCritic(tower(spec.num_actions, 0.01), tower(1, 1.0), nn.Flatten(), obs_scale)


def _convolutional(kind: str, spec: EnvSpec, obs_scale: float) -> ActorCritic:
    """The convolutions of DQN (doi:10.1038/nature14236) and two heads.

    nature: the heads share a layer of 512 units; document: each has one of its own, as in the
    user's document.
    """
    if len(spec.obs_shape) != 3 or _smallest_side(spec) < NATURE_SMALLEST_SIDE:
        raise StartError(
            f"--network {kind} needs images of at least {NATURE_SMALLEST_SIDE} pixels a side, "
            f"and --env gives {spec.obs_shape}: use --network mlp."
        )
    channels_last = spec.obs_shape[-1] < spec.obs_shape[0]
    channels = spec.obs_shape[-1 if channels_last else 0]
    gain = math.sqrt(2)
    trunk = nn.Sequential(
        _ChannelsFirst() if channels_last else nn.Identity(),
        orthogonal(nn.Conv2d(channels, 32, 8, stride=4), gain),
        nn.ReLU(),
        orthogonal(nn.Conv2d(32, 64, 4, stride=2), gain),
        nn.ReLU(),
        orthogonal(nn.Conv2d(64, 64, 3, stride=1), gain),
        nn.ReLU(),
        nn.Flatten(),
    )
    with torch.no_grad():
        features = trunk(torch.zeros(1, *spec.obs_shape)).shape[1]

    def hidden() -> nn.Sequential:
        return nn.Sequential(orthogonal(nn.Linear(features, 512), gain), nn.ReLU())

    policy = orthogonal(nn.Linear(512, spec.num_actions), 0.01)
    value = orthogonal(nn.Linear(512, 1), 1.0)
    if kind == "nature":
        return ActorCritic(policy, value, trunk.extend(hidden()), obs_scale)
    return ActorCritic(hidden().append(policy), hidden().append(value), trunk, obs_scale)


def orthogonal(layer: Layer, gain: float) -> Layer:
    """Initialise a layer: orthogonal weights of that gain, no bias."""
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class FlatParameters:
    """A network's parameters and gradients as two flat float32 vectors [num_params].

    The vectors end in zeros up to a multiple of `SHARD_ALIGNMENT`. `numpy` is the parameter
    vector without a copy. With `share` the parameters are those of another network of the same
    shape, which thereby learns with it; the gradient is always its own.
    """

    def __init__(self, network: nn.Module, *, share: FlatParameters | None = None) -> None:
        parameters = list(network.parameters())
        used = sum(p.numel() for p in parameters)
        self.num_params = -(-used // SHARD_ALIGNMENT) * SHARD_ALIGNMENT
        self.vector: Tensor = (
            torch.zeros(self.num_params) if share is None else share.vector.detach()
        )
        self.grad = torch.zeros(self.num_params)
        self.vector.grad = self.grad
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            view = self.vector[start:end].view_as(parameter)
            if share is None:
                view.copy_(parameter.detach())
            parameter.data = view
            parameter.grad = self.grad[start:end].view_as(parameter)
            start = end

    @property
    def numpy(self) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self.vector.numpy()
        return array

    def clip_grad_norm(self, max_norm: float) -> float:
        """Scale the gradient down to this L2 norm (0: leave it); returns its norm before."""
        return float(nn.utils.clip_grad_norm_([self.vector], max_norm or math.inf))


def sample_actions(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Actions [N] from softmax(logits) [N, A], by the Gumbel-max trick."""
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return (logits - noise.log()).argmax(-1)
