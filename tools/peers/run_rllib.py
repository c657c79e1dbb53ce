"""Env steps per second of RLlib's APPO (new API stack) on an Atari game, on all cores.

    python run_rllib.py appo GAME SECONDS

2 env runners with 16 environments each, a learner in the driver, one pass over each batch (also in its
circular buffer, whose default is two), the Nature CNN's filters. Its wrapper skips frames, so that the game
itself must not. Measured after the first iterations. Its counters tell which share of the sampled env steps was
learned from.
"""

import json
import os
import sys
import time

import ale_py
import gymnasium as gym
import ray
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.connectors.env_to_module.frame_stacking import FrameStackingEnvToModule
from ray.rllib.connectors.learner.frame_stacking import FrameStackingLearner
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.env.wrappers.atari_wrappers import wrap_atari_for_new_api_stack
from ray.tune.registry import register_env

WARM_S = 20.0
CORES = 4  # told to Ray, so that two runners and a driver are placed on two real ones


def make_env(config: dict) -> gym.Env:
    """The game with RLlib's own Atari wrappers, which skip 4 frames."""
    gym.register_envs(ale_py)
    env = gym.make(
        config["id"], frameskip=1, repeat_action_probability=0.0, render_mode="rgb_array"
    )
    return wrap_atari_for_new_api_stack(env, dim=84, framestack=None)


def main() -> None:
    """Train for some seconds; print one JSON document."""
    _, game, seconds = sys.argv[1:]
    ray.init(num_cpus=CORES, include_dashboard=False, log_to_driver=False)
    register_env("atari", make_env)
    config = (
        APPOConfig()
        .environment("atari", env_config={"id": f"ALE/{game}-v5"}, clip_rewards=True)
        .env_runners(
            num_env_runners=2,
            num_envs_per_env_runner=16,
            env_to_module_connector=lambda *args, **kw: FrameStackingEnvToModule(num_frames=4),
        )
        .learners(num_learners=0)
        .training(
            learner_connector=lambda *args, **kw: FrameStackingLearner(num_frames=4),
            num_epochs=1,
            circular_buffer_iterations_per_batch=1,
            train_batch_size_per_learner=1024,
        )
        .rl_module(
            model_config=DefaultModelConfig(
                conv_filters=[[32, 8, 4], [64, 4, 2], [64, 3, 1]],
                conv_activation="relu",
                head_fcnet_hiddens=[512],
                vf_share_layers=True,
            )
        )
        .reporting(min_time_s_per_iteration=5)
    )
    algorithm = config.build_algo()
    started = time.perf_counter()
    counts = _counts(algorithm.train())
    while time.perf_counter() - started < WARM_S:
        counts = _counts(algorithm.train())
    first, began = counts, time.perf_counter()
    while time.perf_counter() - began < float(seconds):
        counts = _counts(algorithm.train())
    passed = time.perf_counter() - began
    sampled, trained = (b - a for a, b in zip(first, counts, strict=True))
    if not sampled:
        sys.exit(f"RLlib's env runners gave no samples within {seconds} s of measuring")
    algorithm.stop()  # or its end starts Ray once more, after the shutdown, and hangs
    ray.shutdown()
    print(json.dumps({"env_steps": sampled, "seconds": passed, "trained_share": trained / sampled}))
    sys.stdout.flush()
    os._exit(0)


def _counts(result: dict) -> tuple[float, float]:
    """Env steps sampled and learned from, so far; the first results have neither."""
    sampled = result["env_runners"].get("num_env_steps_sampled_lifetime", 0)
    learners = result.get("learners", {}).get("__all_modules__", {})
    return float(sampled), float(learners.get("num_env_steps_trained_lifetime", 0))


if __name__ == "__main__":
    main()
