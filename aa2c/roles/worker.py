"""The worker process: environments, a replica of the network, and its mode's producer.

Talks to the rest of the run through its port only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
import torch

from aa2c.config.config import Config
from aa2c.envs.find import no_tick
from aa2c.envs.spec import EnvSpec
from aa2c.envs.vector import make_envs
from aa2c.modes.mode import MODES, WorkerSetup
from aa2c.policy.network import make_policy
from aa2c.ports import Report, WorkerPort


def run_worker(
    config: Config,
    worker: int,
    entropy: Sequence[int],
    connect: Callable[[], WorkerPort],
    tell_spec: Callable[[EnvSpec], None],
    saved_state: bytes | None = None,
    tick: Callable[[], None] = no_tick,
) -> None:
    """Produce records until the port says stop; the port is asked for when all else is there.

    `tell_spec` is called as soon as the environments are made: the updater waits for it. It resumes
    from a state that was saved, if its environments could be. `tick` is called after each
    environment that was made or reset, as a sign of life before there is a port.

    `entropy` is every incarnation's own, also where a run is resumed, and so are its random numbers.
    Raises `StartError` if the environment cannot be made.
    """
    seeds = np.random.SeedSequence(entropy).generate_state(2)
    generator = torch.Generator().manual_seed(int(seeds[1]))
    with closing(make_envs(config, config.num_envs, int(seeds[0]) % 2**31, tick)) as envs:
        tell_spec(envs.spec)
        policy = make_policy(config, envs.spec)
        setup = WorkerSetup(config, worker, envs, policy, generator)
        producer = MODES[config.mode].make_producer(setup)
        is_resumed = saved_state is not None and producer.load_state(saved_state)
        port = connect()
        port.report(Report.READY, is_resumed=is_resumed)
        while port.beat() and port.wait_for_turn(producer.state):
            producer.produce(port)
