"""Env steps per second of PPO as in CleanRL's `ppo_continuous_action.py`, on a MuJoCo task.

    python run_cleanrl.py ppo GAME SECONDS

CleanRL is single files, not a package that pins this one: this is the same algorithm with the same settings. One
environment, rollouts of 2048 steps, 10 passes in 32 minibatches, networks of 64 and 64 tanh units, observations and
rewards normalized, a learning rate that falls to 0. Measured from the second rollout on. Torch has as many threads
as it takes.
"""

import json
import sys
import time

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Normal

STEPS, PASSES, MINIBATCHES = 2048, 10, 32
GAMMA, GAE_LAMBDA, CLIP, LEARNING_RATE = 0.99, 0.95, 0.2, 3e-4
UPDATES = 1_000_000 // STEPS  # of CleanRL's usual budget, over which the learning rate falls


def make_env(game: str) -> gym.Env:
    """With CleanRL's wrappers."""
    env = gym.wrappers.RecordEpisodeStatistics(gym.wrappers.FlattenObservation(gym.make(game)))
    env = gym.wrappers.NormalizeObservation(gym.wrappers.ClipAction(env))
    space = env.observation_space
    env = gym.wrappers.TransformObservation(env, lambda obs: np.clip(obs, -10, 10), space)
    env = gym.wrappers.NormalizeReward(env, gamma=GAMMA)
    return gym.wrappers.TransformReward(env, lambda reward: np.clip(reward, -10, 10))


def tower(inputs: int, outputs: int, gain: float) -> nn.Sequential:
    """Two hidden layers, orthogonal weights."""
    layers = [nn.Linear(inputs, 64), nn.Linear(64, 64), nn.Linear(64, outputs)]
    for layer, std in zip(layers, (2**0.5, 2**0.5, gain), strict=True):
        nn.init.orthogonal_(layer.weight, std)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])


class Agent(nn.Module):
    """Separate networks for mean and value, and a log-std of its own for each action."""

    def __init__(self, obs: int, actions: int) -> None:
        super().__init__()
        self.critic, self.actor = tower(obs, 1, 1.0), tower(obs, actions, 0.01)
        self.log_std = nn.Parameter(torch.zeros(1, actions))

    def forward(self, obs: torch.Tensor, action: torch.Tensor | None = None) -> tuple:
        """Action, its log-prob, entropy and the value."""
        normal = Normal(self.actor(obs), self.log_std.exp().expand(len(obs), -1))
        action = normal.sample() if action is None else action
        return (
            action,
            normal.log_prob(action).sum(1),
            normal.entropy().sum(1),
            self.critic(obs)[:, 0],
        )


class Trainer:
    """One environment, rollout after rollout."""

    def __init__(self, game: str) -> None:
        self.envs = gym.vector.SyncVectorEnv(
            [lambda: make_env(game)], autoreset_mode=gym.vector.AutoresetMode.NEXT_STEP
        )
        (obs,) = self.envs.single_observation_space.shape
        (actions,) = self.envs.single_action_space.shape
        self.agent = Agent(obs, actions)
        self.optimizer = torch.optim.Adam(self.agent.parameters(), LEARNING_RATE, eps=1e-5)
        self.obs = torch.zeros(STEPS, 1, obs)
        self.actions = torch.zeros(STEPS, 1, actions)
        self.log_probs, self.rewards, self.dones, self.values = torch.zeros(4, STEPS, 1)
        self.next_obs = torch.as_tensor(self.envs.reset(seed=1)[0], dtype=torch.float32)
        self.next_done = torch.zeros(1)
        self.updates = 0

    def update(self) -> None:
        """A rollout, and all passes over it."""
        self.optimizer.param_groups[0]["lr"] = LEARNING_RATE * max(0, 1 - self.updates / UPDATES)
        self.updates += 1
        self._collect()
        advantages, returns = self._advantages()
        for _ in range(PASSES):
            for rows in torch.randperm(STEPS).chunk(MINIBATCHES):
                self._step(rows, advantages[rows, 0], returns[rows, 0])

    def _collect(self) -> None:
        for t in range(STEPS):
            self.obs[t], self.dones[t] = self.next_obs, self.next_done
            with torch.no_grad():
                acted = self.agent(self.next_obs)
            self.actions[t], self.log_probs[t], _, self.values[t] = acted
            obs, reward, terminated, truncated, _ = self.envs.step(acted[0].numpy())
            self.rewards[t] = torch.as_tensor(reward)
            self.next_obs = torch.as_tensor(obs, dtype=torch.float32)
            self.next_done = torch.as_tensor(terminated | truncated, dtype=torch.float32)

    def _advantages(self) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            value, done = self.agent(self.next_obs)[3], self.next_done
        advantages, last = torch.zeros(STEPS, 1), 0.0
        for t in reversed(range(STEPS)):
            delta = self.rewards[t] + GAMMA * value * (1 - done) - self.values[t]
            advantages[t] = last = delta + GAMMA * GAE_LAMBDA * (1 - done) * last
            value, done = self.values[t], self.dones[t]
        return advantages, advantages + self.values

    def _step(self, rows: torch.Tensor, advantages: torch.Tensor, returns: torch.Tensor) -> None:
        _, log_probs, entropy, values = self.agent(self.obs[rows, 0], self.actions[rows, 0])
        ratio = (log_probs - self.log_probs[rows, 0]).exp()
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        clipped = advantages * ratio.clamp(1 - CLIP, 1 + CLIP)
        old = self.values[rows, 0]
        near = old + (values - old).clamp(-CLIP, CLIP)
        value_loss = 0.5 * torch.max((values - returns) ** 2, (near - returns) ** 2).mean()
        loss = (
            -torch.min(advantages * ratio, clipped).mean() - 0 * entropy.mean() + 0.5 * value_loss
        )
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.agent.parameters(), 0.5)
        self.optimizer.step()


def main() -> None:
    """Train for some seconds; print one JSON document."""
    _, game, seconds = sys.argv[1:]
    trainer = Trainer(game)
    trainer.update()
    started = now = time.perf_counter()
    steps = 0
    while now - started < float(seconds):
        trainer.update()
        steps += STEPS
        now = time.perf_counter()
    print(json.dumps({"env_steps": steps, "seconds": now - started, "trained_share": 1.0}))


if __name__ == "__main__":
    main()
