"""All parameters of a network in one flat vector.

It is what moves between processes: publishing, pulling and stepping the optimizer are each one
operation on it, and the layers' weights are views into it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SHARD_ALIGNMENT = 64  # parameters; keeps vectorised kernels free of remainders


class FlatParameters:
    """A network's parameters and gradients as two flat float32 vectors [num_params].

    Its buffers (running means and stds) follow the parameters; their gradient stays 0, which an optimizer
    without weight decay leaves alone. The vectors end in zeros up to a multiple of
    `SHARD_ALIGNMENT`. `numpy` is the parameter vector without a copy. With `vector` the network
    takes that memory and the parameters in it for its own, so that networks can share them;
    the gradient is always its own.
    """

    def __init__(self, network: nn.Module, *, vector: Tensor | None = None) -> None:
        tensors = [*network.parameters(), *network.buffers()]
        used = sum(t.numel() for t in tensors)
        self.num_params = -(-used // SHARD_ALIGNMENT) * SHARD_ALIGNMENT
        self.vector: Tensor = torch.zeros(self.num_params) if vector is None else vector.detach()
        self.grad = torch.zeros(self.num_params)
        self.vector.grad = self.grad
        start = 0
        for tensor in tensors:
            end = start + tensor.numel()
            view = self.vector[start:end].view_as(tensor)
            if vector is None:
                view.copy_(tensor.detach())
            tensor.data = view
            if tensor.requires_grad:
                tensor.grad = self.grad[start:end].view_as(tensor)
            start = end

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
