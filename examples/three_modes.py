"""All three modes on the same task: gradients, one shared network, trajectories."""

import sys

from aa2c import recipe, train

if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    for mode in ("grad", "model", "traj"):
        status = train(recipe("CartPole-v1", mode=mode, total_env_steps=steps))
        seconds, lag = status["run"]["uptime_s"], status["policy_lag"]["mean"]
        mean = status["returns"]["train"]["mean"]
        print(f"{mode:5}  mean return {mean:6.1f}  {seconds:5.1f} s  policy lag {lag:.1f}")
