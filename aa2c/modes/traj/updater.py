"""The updater's half of mode traj: advantages, shuffled minibatches, PPO's loss in update threads.

Update threads split each minibatch: every thread has its own gradient on the shared parameters, the
weighted parts add up to the gradient of one thread up to rounding, and one optimizer step follows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aa2c.envs.spec import ACTION_MASK, OBS
from aa2c.learn.batch import Sequences, join_records, states_of, take_rows
from aa2c.learn.losses import PpoLosses, explained_variance, ppo_loss, share_left
from aa2c.learn.optimizer import get_state, join_states, load_states, make_optimizer
from aa2c.learn.returns import clip_rewards, gae, normalize, vtrace
from aa2c.learn.schema import VALUES, begins_episode, next_values, sequence_length
from aa2c.learn.statistics import ReceivedStatistics, some_steps
from aa2c.modes.common import UpdaterHalf
from aa2c.modes.mode import Outcome, UpdaterSetup
from aa2c.modes.traj import minibatches_per_pass, rollouts_per_batch
from aa2c.policy.flat import FlatParameters
from aa2c.policy.policy import Policy
from aa2c.ports import Arrays, Record

FORWARD_ROWS = 1024  # observations evaluated at once where no gradient is needed
OBSERVED_ROWS = 1024  # about so many of a batch's observations count in the running mean and std
RATE_CHANGE = 1.5  # of the learning rate after a pass, where it adapts
MOST_RATE_CHANGE = 10.0  # of the learning rate in all, up or down
_SHUFFLING, _RATE_FACTOR = "shuffling", "rate_factor"

Floats = NDArray[np.float32]


class _Discount(TypedDict):
    gamma: float
    gae_lambda: float


class TrajConsumer(UpdaterHalf):
    """Learns from batches of trajectories."""

    def __init__(self, setup: UpdaterSetup) -> None:
        config, params, policy, leaves, port = setup
        self._statistics = ReceivedStatistics(leaves, policy)
        self._names = {leaf.name for leaf in leaves}
        self._config = config
        self._config_now = port.config_now
        self._params = params
        self._rate_factor = 1.0
        self._explained = math.nan
        self._optimizer = make_optimizer(config, params.vector)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._threads = ThreadPoolExecutor(config.update_threads, "aa2c-update")
        self._replicas = [(policy, params)]
        for _ in range(config.update_threads - 1):
            replica = copy.deepcopy(policy)
            self._replicas.append((replica, FlatParameters(replica, vector=params.vector)))
        self._policy = policy
        self.records_per_update = rollouts_per_batch(config)

    def accepts(self, record: Record) -> bool:
        """A rollout whose numbers are finite."""
        numbers = [a for a in record.arrays.values() if a.dtype.kind == "f"]
        steps = record.header.values.get("env_steps", 0)
        return (
            record.arrays.keys() == self._names
            and steps == np.count_nonzero(~record.arrays["is_reset"])
            and all(bool(np.isfinite(array).all()) for array in numbers)
            and self._statistics.accepts(record.arrays)
        )

    def consume(
        self, records: Sequence[Record], learning_rate: float, keep_going: Callable[[], bool]
    ) -> Outcome:
        """Several passes over the records' shuffled transitions."""
        self._config = self._config_now()
        batch = join_records([record.arrays for record in records])
        self._statistics.merge([record.arrays for record in records])
        obs = torch.from_numpy(batch[OBS])[:-1].flatten(0, 1)
        steps: list[Tensor] = []
        for parts in self._passes(batch, obs, learning_rate):
            steps.append(parts)
            if not keep_going():
                break
        # Only now: what acted saw observations scaled as they were before.
        self._policy.observe(some_steps(torch.from_numpy(batch[OBS])[:-1], OBSERVED_ROWS))
        rate = learning_rate * self._rate_factor
        parts = torch.stack(steps)
        made = parts[parts.isfinite().all(1)]
        losses = dict(zip(_PARTS, made.mean(0).tolist(), strict=True)) if len(made) else {}
        losses |= {"learning_rate": rate, "explained_variance": self._explained}
        return Outcome(len(made), losses, nonfinite=len(steps) - len(made))

    def _passes(self, batch: Arrays, obs: Tensor, learning_rate: float) -> Iterator[Tensor]:
        """Step on one minibatch after the other; gives the parts of each one's loss."""
        config = self._config
        (group,) = self._optimizer.param_groups
        flat = {
            name: torch.from_numpy(batch[name]).flatten(0, 1)
            for name in ("actions", "log_probs", ACTION_MASK)
            if name in batch
        }
        flat["old_values"] = torch.from_numpy(batch[VALUES][:-1].reshape(-1).copy())
        flat["valid"] = torch.from_numpy(~batch["is_reset"].reshape(-1)).float()
        sequences = Sequences(batch, sequence_length(config))
        for epoch in range(config.update_epochs):
            if epoch == 0 or config.advantage != "gae":
                targets, advantages = self._advantages(batch)
                flat["returns"] = torch.from_numpy(targets.reshape(-1))
                flat["advantages"] = torch.from_numpy(advantages.reshape(-1))
            if epoch == 0:
                of = (flat["old_values"], flat["returns"], flat["valid"])
                self._explained = float(explained_variance(*of))
                self._policy.observe_returns(flat["returns"][flat["valid"] > 0])
            group["lr"] = learning_rate * self._rate_factor
            kls = []
            shuffled = torch.randperm(len(sequences), generator=self._generator)
            for chosen in shuffled.tensor_split(min(minibatches_per_pass(config), len(shuffled))):
                parts = self._step(obs, flat, sequences, chosen)
                kls.append(float(parts[_KL]))
                yield parts
            self._adapt_rate(float(np.mean(kls)))
            if config.target_kl and np.mean(kls) > config.target_kl:
                break

    def _adapt_rate(self, kl: float) -> None:
        """A lower learning rate where the policy moved too far in a pass, a higher one where hardly."""
        wanted = self._config.adaptive_kl
        if not wanted:
            return
        if kl > 2 * wanted:
            self._rate_factor /= RATE_CHANGE
        elif kl < wanted / 2:
            self._rate_factor *= RATE_CHANGE
        self._rate_factor = min(max(self._rate_factor, 1 / MOST_RATE_CHANGE), MOST_RATE_CHANGE)

    def _advantages(self, batch: Arrays) -> tuple[Floats, Floats]:
        """Targets of the values and advantages, [T, B] each."""
        config = self._config
        rewards = clip_rewards(batch["rewards"], config.reward_clip)
        rewards = self._policy.scale_rewards(rewards)
        discount = _Discount(gamma=config.gamma, gae_lambda=config.gae_lambda)
        values = batch[VALUES]
        if config.advantage != "gae":
            values, log_probs = self._evaluate(batch)
        following = next_values(batch, values)
        if config.advantage == "vtrace":
            log_ratios = log_probs - batch["log_probs"]
            return vtrace(
                rewards,
                values[:-1],
                following,
                log_ratios,
                batch["terminated"],
                batch["truncated"],
                **discount,
            )
        advantages = gae(
            rewards, values[:-1], following, batch["terminated"], batch["truncated"], **discount
        )
        return advantages + values[:-1], advantages

    def _evaluate(self, batch: Arrays) -> tuple[Floats, Floats]:
        """Values [T+1, B] and log-probs of the actions [T, B], of the policy as it is."""
        policy, rows = self._policy, len(batch[VALUES])
        obs = torch.from_numpy(batch[OBS])
        is_first = torch.from_numpy(begins_episode(batch))
        values, log_probs = [], []
        with torch.inference_mode():
            # So many environments at once that there are FORWARD_ROWS observations.
            for envs in torch.split(torch.arange(obs.shape[1]), max(1, FORWARD_ROWS // rows)):
                part = slice(int(envs[0]), int(envs[-1]) + 1)
                state = tuple(torch.from_numpy(it[0, part]) for it in states_of(batch))
                mask = None
                if ACTION_MASK in batch:
                    mask = _with_a_row_more(batch[ACTION_MASK][:, part])
                seen = policy.evaluate(obs[:, part].flatten(0, 1), state, is_first[:, part], mask)
                distribution, found, _ = seen
                values.append(found.view(rows, -1))
                acted = _with_a_row_more(batch["actions"][:, part])
                log_probs.append(distribution.log_prob(acted).view(rows, -1)[:-1])
        return torch.cat(values, 1).numpy(), torch.cat(log_probs, 1).numpy()

    def _step(
        self, obs: Tensor, flat: dict[str, Tensor], sequences: Sequences, chosen: Tensor
    ) -> Tensor:
        """One optimizer step on these sequences; the parts of its loss and the gradient's norm."""
        rows = sequences.rows[:, chosen]
        part = {name: column[rows] for name, column in flat.items()}
        count = part["valid"].sum().clamp(min=1)
        if self._config.norm_adv:
            numbers, valid = part["advantages"].numpy(), part["valid"].numpy() > 0
            part["advantages"] = torch.from_numpy(normalize(numbers, valid))
        part["weights"] = part.pop("valid") / count
        part["rows"] = rows
        replicas = self._replicas[: len(chosen)]
        split = {name: column.tensor_split(len(replicas), 1) for name, column in part.items()}
        shares = [
            (replica, sequences, own, {name: columns[i] for name, columns in split.items()})
            for i, (replica, own) in enumerate(
                zip(replicas, chosen.tensor_split(len(replicas)), strict=True)
            )
        ]
        if len(shares) == 1:
            losses = self._differentiate(obs, *shares[0])
        else:
            futures = [self._threads.submit(self._differentiate, obs, *share) for share in shares]
            losses = torch.stack([future.result() for future in futures]).sum(0)
        for _, params in replicas[1:]:
            self._params.grad += params.grad
        grad_norm = self._params.clip_grad_norm(self._config.max_grad_norm)
        (parameter,) = self._optimizer.param_groups[0]["params"]
        parameter.grad = self._params.grad
        share = share_left(grad_norm, self._config.max_grad_norm)
        parts = torch.cat([losses, torch.tensor([grad_norm, share])])
        if bool(parts.isfinite().all()):
            self._optimizer.step()
        return parts

    def _differentiate(
        self,
        obs: Tensor,
        replica: tuple[Policy, FlatParameters],
        sequences: Sequences,
        chosen: Tensor,
        part: dict[str, Tensor],
    ) -> Tensor:
        """Leave the gradient of these sequences' share of the loss in the replica's flat gradient."""
        policy, params = replica
        config = self._config
        state, is_first = sequences.start(chosen)
        part = {name: column.flatten(0, 1) for name, column in part.items()}
        seen = take_rows(obs, part["rows"])
        mask = part.get(ACTION_MASK)
        distribution, values, _ = policy.evaluate(seen, state, is_first, mask)
        unit = policy.value_unit
        losses = ppo_loss(
            distribution,
            values / unit,
            part["actions"],
            part["log_probs"],
            part["old_values"] / unit,
            part["advantages"],
            part["returns"] / unit,
            part["weights"],
            clip_coef=config.clip_coef,
            clip_vloss=config.clip_vloss,
            vf_coef=config.vf_coef,
            ent_coef=config.ent_coef[0],
            value_loss=config.value_loss,
        )
        params.grad.zero_()
        losses.total.backward()  # type: ignore[no-untyped-call]
        return torch.stack([loss.detach() for loss in losses])

    def state(self) -> dict[str, Tensor]:
        """The optimizer's state as flat vectors [num_params], its step count, and the rest."""
        return {
            **join_states([self._optimizer]),
            _SHUFFLING: self._generator.get_state(),
            _RATE_FACTOR: torch.tensor(self._rate_factor, dtype=torch.float64),
        }

    def load_state(self, saved: Mapping[str, Tensor], learning_rate: float) -> None:
        load_states([get_state(self._optimizer)], saved)
        self._generator.set_state(saved[_SHUFFLING])
        self._rate_factor = float(saved[_RATE_FACTOR])

    def close(self) -> None:
        self._threads.shutdown()


def _with_a_row_more(column: NDArray[Any]) -> Tensor:
    """[T, B, …] as flat rows, with the last of the T steps again."""
    steps = torch.from_numpy(column)
    return torch.cat([steps, steps[-1:]]).flatten(0, 1)


_PARTS = (*PpoLosses._fields, "grad_norm", "grad_share")
_KL = _PARTS.index("approx_kl")
