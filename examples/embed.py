"""Embed a run in an asyncio program: start it, watch it train, use the trained policy."""

import asyncio
import sys

import numpy as np

from aa2c import Orchestrator, load_policy, recipe


async def main(total_env_steps: int) -> None:
    """Train, printing progress every two seconds, then ask the policy for an action."""
    config = recipe("CartPole-v1", workers=2, total_env_steps=total_env_steps)
    async with Orchestrator(config) as run:
        await run.ready()
        training = asyncio.create_task(run.wait())
        while not training.done():
            await asyncio.wait([training], timeout=2)
            status = run.status()
            print(status["progress"]["env_steps"], status["returns"]["train"]["mean"])
        status = await training
    policy = load_policy(status["run"]["dir"])
    action, _ = policy.predict(np.float32([0, 0, 0.1, 0.5]), deterministic=True)
    print("action for a pole that leans to the right:", action)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300_000))
