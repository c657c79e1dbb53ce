"""Play episodes with a trained policy and its most probable actions, and print the returns.

python evaluate.py runs/NAME 30
"""

import sys

import numpy as np

from aa2c import load_policy, recipe, train


def play(run: str, episodes: int) -> list[float]:
    """Raw returns of whole episodes."""
    policy = load_policy(run)
    env = policy.make_env()  # preprocessing and stacked frames included
    returns = []
    for seed in range(episodes):
        obs, info = env.reset(seed=seed)
        state, total, is_over = None, 0.0, False
        while not is_over:
            legal = info.get("action_mask")  # of a policy that was trained with --action-mask info
            action, state = policy.predict(obs, state, deterministic=True, action_mask=legal)
            obs, reward, terminated, truncated, info = env.step(action)
            total += float(reward)
            is_over = terminated or truncated
        returns.append(total)
    env.close()
    return returns


if __name__ == "__main__":
    if len(sys.argv) == 3:
        directory, count = sys.argv[1], int(sys.argv[2])
    else:  # train a policy first
        status = train(recipe("CartPole-v1", workers=2, total_env_steps=int(sys.argv[1])))
        directory, count = status["run"]["dir"], 5
    found = play(directory, count)
    print(f"{np.mean(found):.1f} ± {np.std(found):.1f} over {len(found)} episodes")
