"""Env steps per second of Stable-Baselines3 on an Atari game: `a2c` or `ppo`, on all cores.

    python run_stable_baselines3.py a2c|ppo GAME SECONDS

16 (a2c) or 8 (ppo) environments in processes of their own, the hyperparameters of RL Zoo, `CnnPolicy` (the
Nature CNN). Measured from the second rollout on. Every sample is learned from: once by A2C, four times by PPO.
"""

import json
import sys
import time

import ale_py
import gymnasium as gym
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack

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


def main() -> None:
    """Train for some seconds; print one JSON document."""
    algorithm, game, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    num_envs = 16 if algorithm == "a2c" else 8
    envs = VecFrameStack(
        make_atari_env(f"{game}NoFrameskip-v4", num_envs, seed=0, vec_env_cls=SubprocVecEnv), 4
    )
    if algorithm == "a2c":
        model = A2C(
            "CnnPolicy",
            envs,
            policy_kwargs={"optimizer_class": RMSpropTFLike, "optimizer_kwargs": {"eps": 1e-5}},
            ent_coef=0.01,
            vf_coef=0.25,
        )
    else:
        model = PPO(
            "CnnPolicy",
            envs,
            n_steps=128,
            n_epochs=4,
            batch_size=256,
            learning_rate=2.5e-4,
            clip_range=0.1,
            ent_coef=0.01,
        )
    clock = Clock(seconds)
    model.learn(10**9, callback=clock)
    steps, passed = (b - a for a, b in zip(clock.first, clock.last, strict=True))
    print(json.dumps({"env_steps": steps, "seconds": passed, "trained_share": 1.0}))
    envs.close()


if __name__ == "__main__":
    main()
