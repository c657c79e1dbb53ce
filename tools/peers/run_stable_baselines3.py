"""Env steps per second of Stable-Baselines3 on an Atari game or a MuJoCo task, on all cores.

    python run_stable_baselines3.py a2c|ppo|ppo-mujoco GAME SECONDS

The hyperparameters of RL Zoo. Atari: 16 (a2c) or 8 (ppo) environments in processes of their own, `CnnPolicy` (the
Nature CNN). MuJoCo: those of HalfCheetah, one environment with normalized observations and rewards. Measured from
the second rollout on. Every sample is learned from: once by A2C, by PPO four times, on MuJoCo 20 times.
"""

import json
import sys
import time

import ale_py
import gymnasium as gym
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env, make_vec_env
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack, VecNormalize

WARM_ROLLOUTS = 2

gym.register_envs(ale_py)  # here, because the environments' processes import this file, too


class Clock(BaseCallback):
    """Counts env steps per rollout, and ends training after some time."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.rollouts = 0
        self.first = self.last = (0, 0.0)

    def _on_rollout_start(self) -> None:
        self.rollouts += 1
        self.last = (self.num_timesteps, time.perf_counter())
        if self.rollouts == WARM_ROLLOUTS:
            self.first = self.last

    def _on_step(self) -> bool:
        return self.rollouts <= WARM_ROLLOUTS or self.last[1] - self.first[1] < self.seconds


def make_a2c(game: str) -> A2C:
    """A2C on an Atari game."""
    rmsprop = {"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}}
    return A2C("CnnPolicy", atari(game, 16), policy_kwargs=rmsprop, ent_coef=0.01, vf_coef=0.25)


def make_ppo(game: str) -> PPO:
    """PPO on an Atari game."""
    return PPO(
        "CnnPolicy",
        atari(game, 8),
        n_steps=128,
        n_epochs=4,
        batch_size=256,
        learning_rate=2.5e-4,
        clip_range=0.1,
        ent_coef=0.01,
    )


def make_ppo_mujoco(game: str) -> PPO:
    """PPO on a MuJoCo task."""
    envs = VecNormalize(make_vec_env(game, 1, seed=0), gamma=0.98)
    return PPO(
        "MlpPolicy",
        envs,
        n_steps=512,
        n_epochs=20,
        batch_size=64,
        learning_rate=2.0633e-05,
        gamma=0.98,
        gae_lambda=0.92,
        clip_range=0.1,
        ent_coef=0.000401762,
        vf_coef=0.58096,
        max_grad_norm=0.8,
        device="cpu",
        policy_kwargs={
            "log_std_init": -2,
            "ortho_init": False,
            "activation_fn": torch.nn.ReLU,
            "net_arch": {"pi": [256, 256], "vf": [256, 256]},
        },
    )


def atari(game: str, num_envs: int) -> VecFrameStack:
    """Environments in processes of their own."""
    name = f"{game}NoFrameskip-v4"
    return VecFrameStack(make_atari_env(name, num_envs, seed=0, vec_env_cls=SubprocVecEnv), 4)


MAKE = {"a2c": make_a2c, "ppo": make_ppo, "ppo-mujoco": make_ppo_mujoco}


def main() -> None:
    """Train for some seconds; print one JSON document."""
    algorithm, game, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    model = MAKE[algorithm](game)
    clock = Clock(seconds)
    model.learn(10**9, callback=clock)
    steps, passed = (b - a for a, b in zip(clock.first, clock.last, strict=True))
    print(json.dumps({"env_steps": steps, "seconds": passed, "trained_share": 1.0}))
    model.get_env().close()


if __name__ == "__main__":
    main()
