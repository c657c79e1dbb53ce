"""A user's own networks that see parts of an observation, have heads, or fit badly."""

import torch
from torch import nn

NARROW, WIDE = 3, 40


class Parts(nn.Module):
    """Features of a dictionary of an image and a tuple."""

    def __init__(self, obs_shape):
        super().__init__()
        height, width, _ = obs_shape["image"]
        self.image = nn.Linear(height * width, 8)
        self.numbers = nn.Linear(sum(size for (size,) in obs_shape["more"]), 8)

    def forward(self, obs):
        assert 0 <= obs["image"].amin() <= obs["image"].amax() <= 1
        return torch.cat(
            [
                self.image(obs["image"].flatten(1)).relu(),
                self.numbers(torch.cat(obs["more"], 1)).relu(),
            ],
            1,
        )


class Policy(nn.Module):
    """Both heads of an observation."""

    def __init__(self, obs_shape, num_outputs):
        super().__init__()
        self.trunk = nn.Sequential(nn.Flatten(), nn.LazyLinear(16), nn.Tanh())
        self.outputs, self.values = nn.Linear(16, num_outputs), nn.Linear(16, 1)

    def forward(self, obs):
        features = self.trunk(obs)
        return self.outputs(features), self.values(features)


class Remembers(nn.Module):
    """Both heads of a GRU, and its state."""

    def __init__(self, obs_shape, num_outputs, memory_size):
        super().__init__()
        (inputs,) = obs_shape
        self.cell = nn.GRUCell(inputs, memory_size)
        self.outputs, self.values = nn.Linear(memory_size, num_outputs), nn.Linear(memory_size, 1)

    def forward(self, obs, state):
        state = self.cell(obs, state)
        return self.outputs(state), self.values(state).squeeze(1), state


class RemembersParts(Remembers):
    """The same, of a dictionary."""

    def __init__(self, obs_shape, num_outputs, memory_size):
        super().__init__((16,), num_outputs, memory_size)
        self.parts = Parts(obs_shape)

    def forward(self, obs, state):
        return super().forward(self.parts(obs), state)


def gives(*shapes):
    """A module whose outputs are zeros of these shapes."""

    class Gives(nn.Module):
        def forward(self, obs, state=None):
            made = tuple(torch.zeros(shape) for shape in shapes)
            return made if len(made) != 1 else made[0]

    return Gives()


def deep_features(obs_shape):
    return gives((2, 3, 4))


def one_row(obs_shape):
    return gives((1, 4))


def two_tensors(obs_shape):
    return gives((2, 3), (2,))


def narrow(obs_shape, num_outputs):
    return gives((2, NARROW), (2,))


def no_values(obs_shape, num_outputs):
    return gives((2, num_outputs))


def many_values(obs_shape, num_outputs):
    return gives((2, num_outputs), (2, 2))


def no_state(obs_shape, num_outputs, memory_size):
    return gives((2, num_outputs), (2,))


def wide_state(obs_shape, num_outputs, memory_size):
    return gives((2, num_outputs), (2,), (2, WIDE))


def raises(obs_shape):
    raise RuntimeError("no such\nlayer")
