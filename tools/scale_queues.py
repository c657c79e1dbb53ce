"""The queues of a run: workers, hosts, network, bridge and updater, as events in simulated time.

Workers act while they have credits, which the updater returns. With the local engine workers and updater
share the cores of one machine; with Ray each host has cores of its own, on which its process answers calls.
Records pass its link, the engine's link, and the bridge, a process beside the updater, one at a time each.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from scale_model import Model

JITTER = 0.1  # std of a rollout's duration, relative; cut off at three
WARM_SHARE = 1 / 3  # of the simulated time, which is not counted


class Clock:
    """The event heap."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._ids = itertools.count()

    def at(self, when: float, act: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._events, (when, next(self._ids), act, args))

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, act, args = heapq.heappop(self._events)
            act(*args)
        self.now = until


class Server:
    """First in, first out, one at a time."""

    def __init__(self) -> None:
        self._free_at = self.busy_s = 0.0

    def take(self, now: float, duration: float) -> float:
        """When it is done."""
        self._free_at = max(self._free_at, now) + duration
        self.busy_s += duration
        return self._free_at


class Cores:
    """Processor sharing: of n jobs on k cores each runs at min(1, k / n) of a core's speed."""

    def __init__(self, clock: Clock, count: int) -> None:
        self._clock, self._count = clock, count
        self._served = 0.0  # seconds of a core that each job present since time 0 would have had
        self._since = 0.0
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._ids, self._turn = itertools.count(), 0

    def run(self, work: float, done: Callable[[], None]) -> None:
        self._serve()
        heapq.heappush(self._jobs, (self._served + work, next(self._ids), done))
        self._plan()

    def _speed(self) -> float:
        return min(1.0, self._count / max(1, len(self._jobs)))

    def _serve(self) -> None:
        self._served += (self._clock.now - self._since) * self._speed()
        self._since = self._clock.now

    def _plan(self) -> None:
        self._turn += 1  # makes the event planned before this one void
        if self._jobs:
            wait = max(0.0, self._jobs[0][0] - self._served) / self._speed()
            self._clock.at(self._clock.now + wait, self._finish, self._turn)

    def _finish(self, turn: int) -> None:
        if turn == self._turn:
            self._serve()
            _, _, done = heapq.heappop(self._jobs)
            self._plan()
            done()


class Process:
    """Does what it is given, one after the other, on cores that others use, too."""

    def __init__(self, clock: Clock, cores: Cores) -> None:
        self._clock, self._cores = clock, cores
        self._given: deque[tuple[float, Callable[[], None]]] = deque()
        self.busy_s = 0.0  # which counts waiting for a core

    def do(self, work: float, done: Callable[[], None]) -> None:
        self._given.append((work, done))
        if len(self._given) == 1:
            self._start()

    def _start(self) -> None:
        (work, done), started = self._given[0], self._clock.now

        def end() -> None:
            self.busy_s += self._clock.now - started
            self._given.popleft()
            if self._given:
                self._start()
            done()

        self._cores.run(work, end)


Unit = list[tuple[int, int]]  # records as (worker, version acted with); several if pre-summed


class Host:
    """The state of a share of the workers."""

    def __init__(self, clock: Clock, cores: Cores) -> None:
        self.cores = cores
        self.process = Process(clock, cores)
        self.link = Server()
        self.ready: Unit = []
        self.version = 0
        self.released: list[int] = []
        self.is_asked = self.is_told = self.is_due = False


class Simulation:
    """One run. The counts are public: their sums are what the tests check."""

    def __init__(self, model: Model, seed: int = 0) -> None:
        self.model, self.clock = model, Clock()
        self._random = random.Random(seed)
        self._machine = machine = Cores(self.clock, model.cores)  # the updater's
        share = model.workers_per_host if model.is_remote else model.workers
        has_own_cores = model.is_remote and not model.one_machine
        self._hosts = [
            Host(self.clock, Cores(self.clock, model.cores) if has_own_cores else machine)
            for _ in range(-(-model.workers // share))
        ]
        self._share = share
        self.inbound, self.outbound = Server(), Server()
        self.bridge = Process(self.clock, machine)
        self.credits = [model.slots] * model.workers
        self._acting_since: dict[int, float] = {}
        self.pending: deque[Unit] = deque()
        self.updating: list[Unit] = []
        self.version = self.made = self.learned = self.on_the_way = self.most_in_flight = 0
        self.acting_s = self.updater_s = 0.0
        self.lags: list[int] = []
        self._warm_at = self._counted = 0.0

    def run(self, seconds: float) -> None:
        self._warm_at = seconds * WARM_SHARE
        for worker in range(self.model.workers):
            self.clock.at(self._random.random() * self.model.act_s, self._begin, worker)
        self.clock.run(seconds)
        self.acting_s += sum(seconds - since for since in self._acting_since.values())

    def in_flight(self) -> int:
        """Records reserved and not yet released, as the credits tell it."""
        return self.model.workers * self.model.slots - sum(self.credits)

    def _host(self, worker: int) -> Host:
        return self._hosts[worker // self._share]

    def _begin(self, worker: int) -> None:
        if worker in self._acting_since or not self.credits[worker]:
            return
        self.credits[worker] -= 1
        self._acting_since[worker] = self.clock.now
        host = self._host(worker)
        version = host.version if self.model.is_remote else self.version
        work = self.model.act_s * (1 + JITTER * max(-3.0, min(3.0, self._random.gauss(0, 1))))
        host.cores.run(work, lambda: self._commit(worker, version))

    def _commit(self, worker: int, version: int) -> None:
        self.acting_s += self.clock.now - self._acting_since.pop(worker)
        self.made += 1
        host = self._host(worker)
        if self.model.is_remote:
            host.ready.append((worker, version))
            self._ask(host)
        else:
            self.pending.append([(worker, version)])
            self._learn()
        self._begin(worker)

    def _ask(self, host: Host) -> None:
        if host.ready and not host.is_asked:
            host.is_asked = True
            self._after_half_a_trip(host.process, self.model.call_host_us, self._gather, host)

    def _after_half_a_trip(
        self, process: Process, us: float, act: Callable[..., None], *args: Any
    ) -> None:
        at = self.clock.now + self.model.rtt_ms / 2e3
        self.clock.at(at, process.do, us * 1e-6, lambda: act(*args))

    def _gather(self, host: Host) -> None:
        got, host.ready = host.ready, []
        self.on_the_way += len(got)
        units = [got] if self.model.presum else [[record] for record in got]
        work = len(units) * self.model.record_host_us * 1e-6
        host.process.do(work, lambda: self._send(host, units))

    def _send(self, host: Host, units: list[Unit]) -> None:
        model = self.model
        bits = len(units) * model.sent_bytes * 8
        sent = host.link.take(self.clock.now, bits / (model.host_gbps * 1e9))
        self.clock.at(sent, self._receive, host, units, bits)

    def _receive(self, host: Host, units: list[Unit], bits: float) -> None:
        arrived = self.inbound.take(self.clock.now, bits / (self.model.gbps * 1e9))
        us = self.model.call_engine_us + len(units) * self.model.take_s * 1e6
        self.clock.at(arrived, self._after_half_a_trip, self.bridge, us, self._deliver, host, units)

    def _deliver(self, host: Host, units: list[Unit]) -> None:
        self.on_the_way -= sum(map(len, units))
        self.pending.extend(units)
        host.is_asked, host.is_due = False, True
        self._ask(host)
        self._tell(host)
        self._learn()

    def _tell(self, host: Host) -> None:
        """One frame down at a time: what was released, and the newest parameters with it."""
        if host.is_told or not (host.released or host.is_due):
            return
        host.is_told, host.is_due = True, False
        released, host.released = host.released, []
        model, is_new = self.model, host.version < self.version
        work = model.call_engine_us + is_new * model.params_engine_us
        version = self.version
        self.bridge.do(work * 1e-6, lambda: self._carry(host, version, released, is_new=is_new))

    def _carry(self, host: Host, version: int, released: list[int], *, is_new: bool) -> None:
        model = self.model
        arrival = self.outbound.take(
            self.clock.now, is_new * model.params_bytes * 8 / (model.gbps * 1e9)
        )
        us = model.call_host_us + is_new * model.params_host_us
        self.clock.at(
            arrival, self._after_half_a_trip, host.process, us, self._told, host, version, released
        )

    def _told(self, host: Host, version: int, released: list[int]) -> None:
        host.version, host.is_told = version, False
        for worker in released:
            self._credit(worker)
        self._tell(host)

    def _learn(self) -> None:
        self.most_in_flight = max(self.most_in_flight, self.in_flight())
        if self.updating or len(self.pending) < (need := self.model.units_per_update):
            return
        self.updating = [self.pending.popleft() for _ in range(need)]
        started = self.clock.now
        left = [self.model.update_threads if self.model.mode == "traj" else 1]

        def done() -> None:
            left[0] -= 1
            if not left[0]:
                self.updater_s += self.clock.now - started
                self._release()

        for _ in range(left[0]):
            self._machine.run(self.model.update_s, done)

    def _release(self) -> None:
        records = [record for unit in self.updating for record in unit]
        self.updating = []
        self.learned += len(records)
        if self.clock.now >= self._warm_at:
            self._counted += len(records) * self.model.steps
            self.lags += [self.version - version for _, version in records]
        self.version += 1
        for worker, _ in records:
            if self.model.is_remote:
                host = self._host(worker)
                host.released.append(worker)
                self.clock.at(self.clock.now, self._tell, host)
            else:
                self._credit(worker)
        self._learn()

    def _credit(self, worker: int) -> None:
        self.credits[worker] += 1
        self._begin(worker)

    def result(self) -> dict[str, Any]:
        seconds, lags = self.clock.now, sorted(self.lags)
        link = max(self.inbound.busy_s, self.outbound.busy_s)
        times = {"network": link, "bridge": self.bridge.busy_s, "updater": self.updater_s}
        shares = {"workers": self.acting_s / self.model.workers / seconds}
        shares |= {name: min(1.0, busy / seconds) for name, busy in times.items()}
        later = [name for name in times if shares[name] > 0.9]
        return {
            "workers": self.model.workers,
            "env_steps_per_s": self._counted / (seconds * (1 - WARM_SHARE)),
            "lag_p95": lags[int(0.95 * (len(lags) - 1))] if lags else None,
            "utilization": shares,
            "saturates": max(later, key=shares.__getitem__) if later else "workers",
        }
