"""Play episodes with a trained policy, greedily, and print the returns.

python evaluate.py runs/NAME 30
"""

import sys

import gymnasium as gym
import numpy as np

from aa2c import Config, load_policy, train


def play(run: str, episodes: int) -> list[float]:
    """Raw returns of whole episodes; calling a policy returns its most probable actions."""
    policy = load_policy(run)
    env = gym.make(policy.checkpoint.config.env)
    returns = []
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        total, is_over = 0.0, False
        while not is_over:
            obs, reward, terminated, truncated, _ = env.step(policy(obs[None])[0])
            total += float(reward)
            is_over = terminated or truncated
        returns.append(total)
    env.close()
    return returns


if __name__ == "__main__":
    if len(sys.argv) == 3:
        directory, count = sys.argv[1], int(sys.argv[2])
    else:  # train a policy first
        status = train(Config(workers=2, total_env_steps=int(sys.argv[1])))
        directory, count = status["run"]["dir"], 5
    found = play(directory, count)
    print(f"{np.mean(found):.1f} ± {np.std(found):.1f} over {len(found)} episodes")
