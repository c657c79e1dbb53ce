"""All three modes on the same task: gradients, one shared network, trajectories."""

import sys
from dataclasses import replace

from aa2c import load_config, train

if __name__ == "__main__":
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    for mode in ("grad", "model", "traj"):
        config = replace(load_config(preset=f"{mode}/vector"), total_env_steps=steps)
        status = train(config)
        seconds, lag = status["run"]["uptime_s"], status["policy_lag"]["mean"]
        mean = status["returns"]["train"]["mean"]
        print(f"{mode:5}  mean return {mean:6.1f}  {seconds:5.1f} s  policy lag {lag:.1f}")
