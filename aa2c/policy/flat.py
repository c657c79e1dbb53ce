"""All parameters of a network in one flat vector.

It is what moves between processes: publishing, pulling and stepping the optimizer are each one
operation on it, and the layers' weights are views into it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aa2c.policy.normalization import RunningMeanStd

SHARD_ALIGNMENT = 64  # parameters; keeps vectorised kernels free of remainders


class FlatParameters:
    """A network's parameters and gradient as two flat float32 vectors [num_params].

    Its buffers of real numbers follow the parameters, running means and stds last, in `statistics`; their
    gradient stays 0, which an optimizer without weight decay leaves alone. Other buffers, such as indices
    and masks, stay where they are: each process has its own. The vectors end in zeros up to a
    multiple of `SHARD_ALIGNMENT`. `numpy` is the parameter vector without a copy. With `vector` the
    network takes that memory and the parameters in it for its own, so that networks can share them;
    the gradient is always its own, and with `own_statistics` they are, too.
    """

    def __init__(
        self, network: nn.Module, *, vector: Tensor | None = None, own_statistics: bool = False
    ) -> None:
        statistics = [
            buffer
            for module in network.modules()
            if isinstance(module, RunningMeanStd)
            for buffer in module.buffers()
        ]
        last = {id(buffer) for buffer in statistics}
        others = [
            buffer
            for buffer in network.buffers()
            if buffer.is_floating_point() and id(buffer) not in last
        ]
        tensors = [*network.parameters(), *others]
        start = sum(t.numel() for t in tensors)
        used = start + sum(t.numel() for t in statistics)
        self.num_params = -(-used // SHARD_ALIGNMENT) * SHARD_ALIGNMENT
        self.vector: Tensor = torch.zeros(self.num_params) if vector is None else vector.detach()
        self.grad = torch.zeros(self.num_params)
        self.vector.grad = self.grad
        self.num_statistics = self.num_params - start if statistics else 0
        self.statistics = self.vector[self.num_params - self.num_statistics :]
        if own_statistics:
            self.statistics = torch.zeros(self.num_statistics)
        _lay_out(tensors, self.vector, copy=vector is None, grad=self.grad)
        _lay_out(statistics, self.statistics, copy=vector is None or own_statistics)

    @property
    def numpy(self) -> NDArray[np.float32]:
        array: NDArray[np.float32] = self.vector.numpy()
        return array

    def clip_grad_norm(self, max_norm: float) -> float:
        """Scale the gradient down to this L2 norm (0: leave it); returns its norm before."""
        norm = nn.utils.get_total_norm([self.grad])
        if max_norm and not norm <= max_norm:
            nn.utils.clip_grads_with_norm_([self.vector], max_norm, norm)
        return float(norm)


def _lay_out(
    tensors: Iterable[Tensor], vector: Tensor, *, copy: bool, grad: Tensor | None = None
) -> None:
    """Make the tensors views into the vector, one after the other; with `copy` of what they hold."""
    start = 0
    for tensor in tensors:
        end = start + tensor.numel()
        view = vector[start:end].view_as(tensor)
        if copy:
            view.copy_(tensor.detach())
        tensor.data = view
        if grad is not None and tensor.requires_grad:
            tensor.grad = grad[start:end].view_as(tensor)
        start = end
