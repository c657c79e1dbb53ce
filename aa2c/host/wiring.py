"""How the roles are wired to the local engine: what each attaches to, and the port it gets.

Runs in the child.
"""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence

from aa2c.checkpoints.files import worker_state
from aa2c.checkpoints.resume import newest_after
from aa2c.config.config import Config
from aa2c.envs.spec import EnvSpec, Leaf
from aa2c.errors import StartError
from aa2c.host.cluster.frames import Cluster
from aa2c.host.commands import Attach, AttachRing, ChildSpec, Commands, LetGo, RingCommand, Role
from aa2c.host.ports import Board, ShmEvaluatorPort, ShmUpdaterPort, ShmWorkerPort
from aa2c.host.resting import Resting
from aa2c.ports import Report
from aa2c.shm.board import ParameterBoard
from aa2c.shm.counters import child_row, run_row, updater_row, worker_row
from aa2c.shm.queue import Sender
from aa2c.shm.ring import RingConsumer, RingProducer
from aa2c.shm.segment import STORES_ARE_ORDERED, Segment
from aa2c.shm.shared_model import SharedModel
from aa2c.shm.slot import ArraySpec, slot_bytes

CROWD_NICENESS = 10  # of more workers than cores, so that nobody else queues behind them
EVALUATOR_NICENESS = 5  # beyond the workers'
RETRY_S = 2.0


def run_worker_role(spec: ChildSpec, commands: Commands, report: Sender) -> None:
    """Run a worker whose port is shared memory."""
    from aa2c.envs.written import plain_spec
    from aa2c.roles.worker import run_worker

    config, tick = spec.config, signs_of_life(spec)

    def tell_spec(of_envs: EnvSpec) -> None:
        report.send(Report.SPACES, spec=plain_spec(of_envs))

    def connect() -> ShmWorkerPort:
        os.nice(_workers_niceness(config))
        attach = commands.wait_for_attach(tick)
        counters = Segment.attach(spec.counters_segment)
        ring = RingProducer(
            Segment.attach(attach.ring),
            config.ring_slots,
            attach.slot_bytes,
            attach.arrays,
            worker=spec.index,
            generation=spec.generation,
            payload_checksum=has_payload_checksum(config),
        )
        return ShmWorkerPort(
            config,
            ring,
            attach_board(config, attach),
            worker_row(counters, spec.index),
            run_row(counters),
            resting=Resting(counters, budget=spec.budget),
            updater=updater_row(counters),
            space=spec.spaces[spec.index],
            records=spec.records,
            hear=commands.hear,
            report=report.send,
            run_dir=spec.run_dir,
        )

    saved_state = None
    if config.deterministic and spec.resume:
        saved_state = worker_state(spec.resume, config, spec.index)
    entropy = (config.seed, spec.index, spec.generation, spec.env_steps_before)
    run_worker(config, spec.index, entropy, connect, tell_spec, saved_state, tick)


def signs_of_life(spec: ChildSpec) -> Callable[[], None]:
    """A callback for a child that comes up, after each step of that."""
    row = child_row(Segment.attach(spec.counters_segment), spec.role, spec.index)
    row.add("beats", 1)  # its imports are done
    return lambda: row.add("beats", 1)


def _workers_niceness(config: Config) -> int:
    """How far workers stand behind orchestrator and updater on the CPU, once they have come up."""
    return CROWD_NICENESS if config.workers > len(os.sched_getaffinity(0)) else 0


def attach_board(config: Config, attach: Attach) -> Board:
    """The parameter board, or in mode model the shared model, that a command names."""
    segment = Segment.attach(attach.board)
    if attach.shared:
        is_locked = config.update_order != "hogwild"
        return SharedModel(segment, attach.shared, is_locked=is_locked)
    return ParameterBoard(segment, attach.num_params)


def has_payload_checksum(config: Config) -> bool:
    """Whether records carry a checksum of their arrays."""
    return config.payload_checksum == "on" or (
        config.payload_checksum == "auto" and not STORES_ARE_ORDERED
    )


def run_updater_role(spec: ChildSpec, commands: Commands, report: Sender) -> None:
    """Run the updater with shared memory for its port."""
    from aa2c.envs.written import read_spec
    from aa2c.roles.updater import run_updater

    tick = signs_of_life(spec)
    run_updater(
        spec.config,
        spec.run_dir,
        lambda: read_spec(commands.wait_for_spaces(tick).spec),
        functools.partial(_connect_updater, spec, commands, report, tick),
        lambda: newest_after(spec.run_dir, spec.config, spec.last_sequence, spec.resume),
        is_restart=spec.generation > 0,
    )


def _connect_updater(
    spec: ChildSpec,
    commands: Commands,
    report: Sender,
    tick: Callable[[], None],
    num_params: int,
    leaves: Sequence[Leaf],
    shared: Mapping[str, int],
) -> ShmUpdaterPort:
    """Report the sizes of records and parameters, and wait for the memory that they need."""
    arrays = [ArraySpec(*leaf) for leaf in leaves]
    record_bytes = slot_bytes(tuple(arrays))
    report.send(
        Report.SPEC,
        num_params=num_params,
        slot_bytes=record_bytes,
        arrays=arrays,
        shared=list(shared.items()),
    )
    port = ShmUpdaterPort(
        spec.config,
        attach_board(spec.config, commands.wait_for_attach(tick)),
        Segment.attach(spec.counters_segment),
        spaces=spec.spaces,
        records=spec.records,
        hear=commands.hear,
        report=report.send,
        run_dir=spec.run_dir,
        generation=spec.generation,
    )

    def obey(command: RingCommand) -> None:
        match command:
            case AttachRing(ring=name, worker=worker, generation=generation):
                segment, slots = Segment.attach(name), spec.config.ring_slots
                whose = {"worker": worker, "generation": generation}
                port.attach_ring(RingConsumer(segment, slots, record_bytes, **whose))
            case LetGo(worker=worker):
                port.let_go(worker)

    commands.obey_with(obey)
    return port


def run_evaluator_role(spec: ChildSpec, commands: Commands, report: Sender) -> None:
    """Run the evaluator with shared memory for its port, behind everyone else on the CPU.

    Not while it comes up, which would then take a minute on a busy machine.
    """
    from aa2c.roles.evaluator import run_evaluator

    tick = signs_of_life(spec)

    def connect() -> ShmEvaluatorPort:
        os.nice(_workers_niceness(spec.config) + EVALUATOR_NICENESS)
        return ShmEvaluatorPort(
            spec.config,
            attach_board(spec.config, commands.wait_for_attach(tick)),
            Segment.attach(spec.counters_segment),
            commands=commands,
            report=report.send,
        )

    run_evaluator(spec.config, spec.run_dir, connect, tick)


def run_engine_role(spec: ChildSpec, commands: Commands, report: Sender) -> None:
    """Run the bridge to the hosts of a cluster."""
    from aa2c.host.cluster.bridge import Bridge

    assert spec.make_cluster is not None
    cluster, tick = spec.make_cluster(spec.config, spec.run_dir), signs_of_life(spec)
    failures = 0
    while not _has_opened(cluster, report, failures, is_restart=spec.generation > 0):
        tick()
        time.sleep(RETRY_S)
        failures += 1
    asyncio.run(Bridge(spec, report, cluster).run())


def _has_opened(cluster: Cluster, report: Sender, failures: int, *, is_restart: bool) -> bool:
    """A cluster that was there once is waited for; this is told after 0, 1, 2, 4, 8 ... failures.

    Raises `StartError` if it never was there.
    """
    try:
        cluster.open()
    except StartError as error:
        if not is_restart:
            raise
        event, about = "the cluster is not there, and is tried again", {"reason": str(error)}
        if failures & (failures - 1) == 0:
            report.send(Report.HOST_CHANGED, event=event, is_bad=True, about=about)
        return False
    return True


ROLES: dict[Role, Callable[[ChildSpec, Commands, Sender], None]] = {
    "worker": run_worker_role,
    "updater": run_updater_role,
    "evaluator": run_evaluator_role,
    "engine": run_engine_role,
}
