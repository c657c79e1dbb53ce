"""A trunk of somebody's own, with layers of many kinds."""

import torch
from torch import nn

from aa2c.policy.layers import ResidualBlock


def make(obs_shape):
    return nn.Sequential(
        nn.Conv2d(obs_shape[0], 8, 8, stride=4, padding="valid"),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, stride=2, groups=2, bias=False),
        nn.ReLU(),
        nn.ReLU(),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 8, 3, dilation=2)),
        nn.ELU(),
        nn.Flatten(),
        nn.Linear(200, 20),
        nn.Linear(20, 10),
    ).eval()


class Inverted(nn.Sequential):
    """A Sequential that computes something else."""

    def forward(self, x):
        return super().forward(1 - x) * 2


class Coordinates(nn.Module):
    """Adds a float32 plane to whatever it gets."""

    def forward(self, x):
        plane = torch.linspace(-1, 1, x.shape[-1]).expand(len(x), 1, *x.shape[2:])
        return torch.cat([x.float(), plane], dim=1)


def make_others(obs_shape):
    return Inverted(
        nn.Conv2d(obs_shape[0], 8, 8, stride=8),
        Coordinates(),
        nn.Conv2d(9, 8, 3),
        ResidualBlock(8),
        nn.Flatten(),
        nn.LayerNorm(8 * 8 * 8),
        nn.Linear(8 * 8 * 8, 20),
    )


def make_mixed(obs_shape):
    return nn.Sequential(*make_others(obs_shape))


class Shuffled(nn.Module):
    """Sees its inputs in an order drawn when it is made, and some of them not at all."""

    def __init__(self, inputs):
        super().__init__()
        self.register_buffer("order", torch.randperm(inputs))
        self.register_buffer("is_hidden", torch.arange(inputs) == 1)
        self.layer = nn.Linear(inputs, 8)

    def forward(self, x):
        return self.layer(torch.where(~self.is_hidden, x[:, self.order], 0.0))


def make_shuffled(obs_shape):
    return Shuffled(*obs_shape)
