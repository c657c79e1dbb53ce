"""The mathematics of actor-critic learning: no processes, no shared memory, no asyncio."""
