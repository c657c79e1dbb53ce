"""A trunk of somebody's own, with layers of many kinds."""

from torch import nn


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
