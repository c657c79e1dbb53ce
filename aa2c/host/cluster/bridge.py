"""The bridge: hosts are started, told what the run says, and asked for the records of their workers.

Runs in the process `aa2c-engine`, beside the orchestrator. Records are copied into rings that mirror the
hosts' (see `aa2c.shm.relay`), counters into the run's table, and parameters from its board, so that the
updater and the rest of the run know nothing of hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import random

from aa2c.errors import StartError
from aa2c.host.cluster.frames import Cluster, Link, ShareSpec
from aa2c.host.cluster.home import Home
from aa2c.host.cluster.remote_host import RemoteHost
from aa2c.host.commands import ChildSpec, Stop, ToWorker, decode
from aa2c.ports import Report
from aa2c.shm.queue import Receiver, Sender

BEAT_S = 0.1
HOSTS_EVERY_S = 1.0
LOOK_FOR_HEAD_S = 3.0
PLACE_S = 20.0  # to start a host that has a place
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.5, 30.0
HEAD_IS_GONE = (
    "the cluster's head does not answer: unless it comes back, all hosts end in about a minute, and wait "
    "for a new one"
)
MOST_EPOCHS = 2**20  # of one incarnation of the engine's process


def too_large(record: int, params: int, room: int) -> str:
    """What to say if a node has no room for two of a record or of the parameters; else ''."""
    largest, what = max((record, "record"), (params, "set of parameters"))
    if 2 * largest <= room:
        return ""
    less = " or lower --num-envs or --num-steps" if largest == record else ""
    return (
        f"a {what} has {largest / 1e6:,.0f} MB, and the smallest object store of the cluster {room / 1e6:,.0f} "
        "MB: what does not fit is written to a node's disk on its way, which is slow. Start nodes with a "
        f"larger --object-store-memory{less}"
    )


class Bridge:
    """All hosts of a run, which a cluster starts."""

    def __init__(self, spec: ChildSpec, report: Sender, cluster: Cluster) -> None:
        self._spec = spec
        self._config = spec.config
        self._home = Home(spec)
        self._space = spec.spaces[0]  # which all remote workers share
        self._report = report
        self._cluster = cluster
        self._hosts: dict[int, RemoteHost] = {}
        self._epoch = spec.generation * MOST_EPOCHS
        self._is_sized = False
        self._is_over = asyncio.Event()
        self._failure: StartError | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is told to stop. Raises `StartError` if hosts cannot be started at all."""
        loop = asyncio.get_running_loop()
        commands = Receiver(self._spec.commands)
        loop.add_reader(commands.fileno(), lambda: self._hear(commands))
        loop.add_reader(self._space.fileno(), self._look_for_released)
        self._report.send(Report.READY)
        self._tasks.add(asyncio.create_task(self._watch_head()))
        reported_at = 0.0
        try:
            while not self._is_over.is_set():
                self._home.row.add("beats", 1)
                self._look_for_released()
                if loop.time() - reported_at >= HOSTS_EVERY_S:
                    reported_at = loop.time()
                    for host in self._hosts.values():
                        host.sample()
                    self._report.send(Report.HOSTS, hosts=[h.told() for h in self._hosts.values()])
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._is_over.wait(), BEAT_S)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._cluster.close()
            self._home.close()
        if self._failure:
            raise self._failure

    async def _watch_head(self) -> None:
        """Say when the cluster's head is gone: records still come, but not for long."""
        was_there = True
        while True:
            await asyncio.sleep(LOOK_FOR_HEAD_S)
            is_there = await self._cluster.is_there()
            if is_there != was_there:
                event = "the cluster's head answers again" if is_there else HEAD_IS_GONE
                self._report.send(Report.HOST_CHANGED, event=event, is_bad=not is_there, about={})
            was_there = is_there

    async def _compare_with_room(self, record: int, params: int) -> None:
        """Say early what will be slow, or fail with a full disk."""
        if event := too_large(record, params, await self._cluster.room()):
            self._report.send(Report.HOST_CHANGED, event=event, is_bad=True, about={})

    def _look_for_released(self) -> None:
        self._space.wait(0)
        for host in self._hosts.values():
            host.look_for_released()

    def _hear(self, commands: Receiver) -> None:
        try:
            messages = commands.drain()
        except EOFError:  # the orchestrator is gone
            self._is_over.set()
            return
        for message in messages:
            match decode(message):
                case Stop():
                    self._is_over.set()
                case ToWorker(worker=worker, generation=generation, command=command):
                    if command["kind"] == "Attach" and not self._is_sized:
                        self._is_sized = True
                        sizes = command["slot_bytes"], 4 * command["num_params"]
                        self._tasks.add(asyncio.create_task(self._compare_with_room(*sizes)))
                    self._host_of(worker).tell(worker, generation, command)

    def _host_of(self, worker: int) -> RemoteHost:
        """The one whose share the worker is; started when it is needed first."""
        share = self._config.workers_per_host
        index = worker // share
        if index not in self._hosts:
            most = len(self._spec.spaces)
            workers = range(index * share, min(most, (index + 1) * share))
            self._hosts[index] = RemoteHost(index, workers, self._home, self._report)
            self._tasks.add(asyncio.create_task(self._keep(self._hosts[index])))
        return self._hosts[index]

    async def _keep(self, host: RemoteHost) -> None:
        """Start a host, exchange with it until it is lost, and start another."""
        backoff = FIRST_BACKOFF_S
        while not self._is_over.is_set():
            try:
                share = self._share(host)
                await host.exchange(share.epoch, await self._start(host, share))
            except StartError as error:
                self._failure = error
                self._is_over.set()
            except Exception as error:  # whatever a network or the cluster raises: it is lost
                backoff = FIRST_BACKOFF_S if host.records else min(2 * backoff, MAX_BACKOFF_S)
                host.lost(error)
                await asyncio.sleep(backoff * random.uniform(0.75, 1.25))

    async def _start(self, host: RemoteHost, share: ShareSpec) -> Link:
        """Say so if there is no place for it; it is waited for all the same."""
        host.wait()
        starting = asyncio.ensure_future(self._cluster.start(share))
        try:
            await asyncio.wait([starting], timeout=PLACE_S)
            if not starting.done():
                host.tell_of_waiting()
            return await starting
        finally:
            starting.cancel()

    def _share(self, host: RemoteHost) -> ShareSpec:
        self._epoch += 1
        return ShareSpec(
            config=self._config,
            registered=dict(self._spec.registered),
            run_id=f"{self._spec.run_dir.name[-8:]}-{self._epoch}",
            epoch=self._epoch,
            first=host.workers.start,
            count=len(host.workers),
            env_steps_before=self._spec.env_steps_before,
        )
