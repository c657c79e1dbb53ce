"""What a policy remembers: an LSTM or GRU between trunk and heads, whose state is an explicit argument."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]  # what a policy remembers, [N, H] each; empty without memory


class Recurrent(nn.Module):
    """What has a state of tensors [N, size], zeros where an episode begins."""

    num_states: int  # tensors of a state

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def initial(self, rows: int) -> State:
        """The state at the beginning of so many episodes."""
        return tuple(torch.zeros(rows, self.size) for _ in range(self.num_states))

    def forward(self, features: Tensor, state: State, is_first: Tensor) -> tuple[Tensor, State]:
        """Outputs [T, N, H] of a sequence of features [T, N, F], and the state after it.

        The state is forgotten where `is_first` [T, N], before the row is seen.
        """
        resets = is_first.any(1).nonzero().flatten().tolist()
        borders = sorted({0, *resets, len(features)})
        outputs = []
        for begin, end in itertools.pairwise(borders):
            state = forget(state, is_first[begin])
            output, state = self.stretch(features[begin:end], state)
            outputs.append(output)
        return torch.cat(outputs), state

    def stretch(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        """`forward` of a stretch in which no episode begins."""
        raise NotImplementedError


class Memory(Recurrent):
    """One recurrent layer of `size` units, orthogonal weights and no bias at first.

    A state is (h,) of a GRU or (h, c) of an LSTM, zeros where an episode begins.
    """

    def __init__(self, kind: str, inputs: int, size: int) -> None:
        super().__init__(size)
        self.is_lstm = kind == "lstm"
        self.num_states = 2 if self.is_lstm else 1
        self.rnn = (nn.LSTM if self.is_lstm else nn.GRU)(inputs, size)
        for name, parameter in self.rnn.named_parameters():
            if "weight" in name:
                nn.init.orthogonal_(parameter)
            else:
                nn.init.zeros_(parameter)

    def stretch(self, features: Tensor, state: State) -> tuple[Tensor, State]:
        if self.is_lstm:
            h, c = (part.unsqueeze(0) for part in state)
            output, (h, c) = self.rnn(features, (h, c))
            return output, (h.squeeze(0), c.squeeze(0))
        output, h = self.rnn(features, state[0].unsqueeze(0))
        return output, (h.squeeze(0),)


def forget(state: State, is_first: Tensor) -> State:
    """The state with zeros in the rows where an episode begins, [N]."""
    if not bool(is_first.any()):
        return state
    begins = is_first.unsqueeze(1)
    return tuple(part.masked_fill(begins, 0) for part in state)  # a product would keep a NaN


def without_nonfinite(state: State) -> State:
    """The state with zeros in the rows that are not finite in all of its parts."""
    finite = [part.isfinite().all(1) for part in state]
    return forget(state, ~torch.stack(finite).all(0)) if finite else state
