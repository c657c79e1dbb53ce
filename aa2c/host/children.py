"""The child processes of one run: started, watched, restarted, attached to shared memory, stopped.

Runs in the orchestrator, on its event loop. Reports about a child's own start and end are handled
here; the others are passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aa2c.clock import LivedClock
from aa2c.config.config import Config
from aa2c.errors import Aa2cError, RunFailed, SharedMemoryTooSmall, StartError
from aa2c.host.cluster.remote import OF_HOSTS, RemoteWorkers
from aa2c.host.commands import Evaluate
from aa2c.host.incarnation import LOOK_S, ChildSlot, Incarnation, exit_in_words
from aa2c.host.memory import RunMemory, Sharing
from aa2c.host.restarts import MAX_BACKOFF_S, RestartPolicy
from aa2c.host.starter import Starter
from aa2c.host.upkeep import Upkeep, first_of
from aa2c.host.verdict import failure
from aa2c.host.watch import watch
from aa2c.ports import Counters, Message, Report

WORKERS_SHARE_OF_STOP = 0.6  # of the time to stop; the rest is for the updater's checkpoint
TIME_TO_SAVE_S = 1.5


class Children:
    """Updater, evaluator and workers of a run; the engine's process, too, if workers are `remote`.

    `on_report` gets what concerns the run, `on_failure` what it cannot survive.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        memory: RunMemory,
        starter: Starter,
        remote: RemoteWorkers | None,
        log: Any,
        *,
        is_resumed: bool,
        on_report: Callable[[int, Message], None],
        on_failure: Callable[[Aa2cError], None],
    ) -> None:
        self._config = config
        self._run_dir = run_dir
        self._is_resumed = is_resumed
        self._memory = memory
        self._starter = starter
        self._remote = remote
        self._log = log
        self._on_report = on_report
        self._on_failure = on_failure
        self._stopping = asyncio.Event()  # of workers and updater
        self._over = asyncio.Event()  # for the evaluator, too
        self._last_act: Evaluate | None = None
        self._last_act_is_due = asyncio.Event()
        self._has_no_evaluator = asyncio.Event()
        self.have_come_up = asyncio.Event()
        self._upkeep = Upkeep(
            memory.counters.run,
            run_dir,
            log,
            stopping=self._over,
            have_come_up=self.have_come_up,
        )
        self.updater = ChildSlot("updater")
        self.evaluator = ChildSlot("evaluator")
        self.workers = [ChildSlot("worker", i) for i in range(config.workers)]
        self._sharing = Sharing(memory, self.updater)
        self._gone: dict[int, ChildSlot] = {}
        self._updater_was_away = False
        self._keeping: dict[int, asyncio.Task[None]] = {}

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start them all, in tasks that end when they have been stopped."""
        self._tasks = tasks
        counters = self._memory.counters
        self._upkeep.start(tasks, lambda: self.slots)
        tasks.create_task(self._keep(self.updater, counters.updater))
        if self._remote:
            tasks.create_task(self._keep(self._remote.engine, counters.engine))
        for slot in self.workers:
            self._keep_worker(slot)
        if self._config.eval_interval_s:
            tasks.create_task(self._keep_evaluator(counters.evaluator))

    @property
    def slots(self) -> list[ChildSlot]:
        """All of them: the engine first, which ends the workers of hosts with it."""
        engine = [self._remote.engine] if self._remote else []
        return [*engine, self.updater, self.evaluator, *self.workers]

    def _keep_worker(self, slot: ChildSlot) -> None:
        row = self._memory.counters.workers[slot.index]
        self._keeping[slot.index] = self._tasks.create_task(self._keep(slot, row))

    async def set_workers(self, count: int) -> None:
        """Add workers, or remove the last ones, which finish their record first."""
        while len(self.workers) < count:
            index = len(self.workers)
            slot = self._gone.pop(index, None) or ChildSlot("worker", index)
            slot.is_leaving = slot.is_abandoned = False
            self.workers.append(slot)
            self._keep_worker(slot)
        leaving = self.workers[count:]
        await asyncio.gather(*(self._take_away(slot) for slot in leaving))

    async def _take_away(self, slot: ChildSlot) -> None:
        slot.is_leaving = True
        if slot.child:
            await slot.child.stop(WORKERS_SHARE_OF_STOP * self._config.stop_timeout_s)
        await asyncio.wait([self._keeping.pop(slot.index)])
        slot.generation += 1  # the next one here must not be mistaken for this one
        self.workers.remove(slot)
        self._gone[slot.index] = slot
        self._sharing.let_go(slot.index)

    async def stop(self, last_word: Callable[[], None]) -> None:
        """Stop workers, and after `last_word` the updater, which learns what still waits and saves."""
        self._stopping.set()
        clock = LivedClock(2 * LOOK_S)  # while the machine sleeps, nobody can finish anything
        start, in_all = clock.look(), self._config.stop_timeout_s
        workers = [slot.child for slot in self.workers if slot.child]
        share = WORKERS_SHARE_OF_STOP * in_all
        await asyncio.gather(*(child.stop(share) for child in workers))
        last_word()
        seconds = max(in_all - (clock.look() - start), in_all - share)
        try:
            if self.updater.child is not None:
                await self._stop_updater(self.updater.child, seconds)
        finally:
            if self._remote:
                await self._remote.stop(seconds)

    async def _stop_updater(self, updater: Incarnation, seconds: float) -> None:
        clock = updater.clock()
        if not updater.is_alive and self.updater.has_come_up and not self.updater.is_abandoned:
            # It has died, and is not restarted while the run ends: start one more, to save.
            with contextlib.suppress(OSError):
                self.updater.generation = updater.generation + 1
                self.updater.restarts += 1
                updater = self._start(self.updater)
                clock = updater.clock()
        if self.updater.has_come_up and not updater.is_ready:
            await updater.wait_until_ready(seconds - TIME_TO_SAVE_S)
        self._updater_was_away = not (updater.is_ready and updater.is_alive)
        await updater.stop(seconds - clock.look())

    async def evaluate(self, checkpoint: Path, unless: asyncio.Event) -> None:
        """Let the evaluator evaluate a checkpoint, and start it again if it dies meanwhile.

        Returns once it has, cannot, or has taken `progress_timeout_s`, or once `unless` is set.
        """
        self._memory.counters.run.set("is_paused", 0)  # there is nobody else who could rest
        self._last_act = Evaluate(checkpoint=str(checkpoint))
        self._last_act_is_due.set()
        if self.evaluator.child:
            self.evaluator.child.send(self._last_act)
        await first_of(self._has_no_evaluator, unless, timeout_s=self._config.progress_timeout_s)

    def end(self) -> None:
        """End the evaluator: it has nothing to save."""
        self._over.set()
        if self.evaluator.child:
            self.evaluator.child.kill()

    def failure(self, *, is_saved: bool) -> RunFailed | None:
        """Why a run that ended as it should has failed: no last checkpoint, or nothing learned."""
        flags = {"is_saved": is_saved, "was_away": self._updater_was_away}
        return failure(self.updater, self._memory.counters, self._config, self._log, **flags)

    def kill(self) -> None:
        """Kill them all, and block for the moment until they are gone."""
        for slot in self.slots:
            if slot.child:
                slot.child.kill_and_wait()
        self._upkeep.finish()

    async def _keep(self, slot: ChildSlot, row: Counters) -> None:
        """Keep a child running until the run ends: start, watch, restart."""
        policy = RestartPolicy(self._config)
        stopping = self._over if slot.role == "evaluator" else self._stopping
        while not (stopping.is_set() or slot.is_leaving):
            records_before = row.count("records")
            try:
                child = self._start(slot)
            except OSError as error:  # out of processes or descriptors
                if not slot.has_come_up:
                    self._on_failure(StartError(f"the {slot.role} cannot be started: {error}."))
                    break
                self._log.warning("a child cannot be started, for now", role=slot.role, why=error)
                await first_of(stopping, timeout_s=MAX_BACKOFF_S)
                continue
            exit_code = await watch(child, row, self._is_paused, self._config)
            if slot.role == "updater":
                self._sharing.updater_ended()
            if slot.role == "engine" and self._remote:
                self._remote.engine_ended()
            has_done_its_last = slot.role == "evaluator" and self._last_act and exit_code == 0
            if stopping.is_set() or slot.is_leaving or has_done_its_last:
                break
            slot.count_exit(child, exit_code)
            produced = row.count("records") > records_before
            refused = policy.refuse_reason(
                child, exit_code, produced=produced, has_come_up=slot.has_come_up
            )
            if self._config.deterministic and slot.role != "evaluator":
                refused = refused or "--deterministic cannot continue without it, but --resume can"
            self._log_end(slot, child, is_last=refused is not None)
            if refused:
                self._abandon(slot, child, exit_code, refused)
                break
            slot.generation += 1
            slot.restarts += 1
            await first_of(stopping, timeout_s=policy.backoff_s)

    def _start(self, slot: ChildSlot) -> Incarnation:
        """Start the slot's next incarnation. Raises `OSError`."""
        starter = self._remote if self._remote and slot.role == "worker" else self._starter
        slot.child = starter.start(slot, lambda message: self._hear(slot, message))
        if slot.role == "engine" and self._remote:
            self._remote.engine_started()
        self._attach(slot)
        if slot.role == "evaluator" and self._last_act:
            slot.child.send(self._last_act)
        return slot.child

    def _is_paused(self) -> bool:
        return bool(self._memory.counters.run.count("is_paused"))

    async def _keep_evaluator(self, row: Counters) -> None:
        """Start it once the others have come up, so that nobody waits for it."""
        await first_of(self.have_come_up, self._last_act_is_due, self._over)
        await self._keep(self.evaluator, row)
        self._has_no_evaluator.set()

    def _log_end(self, slot: ChildSlot, child: Incarnation, *, is_last: bool) -> None:
        event = "child ended" if is_last else "child ended and is started again"
        log = self._log.info if is_last else self._log.warning
        log(
            event,
            child=child.title,
            pid=child.pid,
            how=slot.last_exit,
            generation=slot.generation,
            **({"reason": child.error} if child.error else {}),
        )

    def _abandon(self, slot: ChildSlot, child: Incarnation, exit_code: int, refused: str) -> None:
        """The run ends with the child, unless it can do without it."""
        slot.is_abandoned = True
        how = child.error or exit_in_words(exit_code)
        if slot.role == "evaluator":
            self._log.warning("there is no evaluator any more", reason=f"{how}; {refused}")
            return
        can_miss_one = self.have_come_up.is_set() and not self._config.deterministic
        if slot.role == "worker" and can_miss_one:
            left = sum(not worker.is_abandoned for worker in self.workers)
            least = max(self._config.min_workers, self._config.least_workers)
            if left >= least:
                self._log.warning(
                    "a worker is abandoned and the run continues without it",
                    worker=slot.index,
                    reason=f"{how}; {refused}",
                )
                return
            refused += f"; workers left: {left} (--min-workers {least})" if left else ""
        kind = RunFailed if self.have_come_up.is_set() else StartError
        if exit_code == StartError.exit_code and child.error:
            self._on_failure(kind(child.error))
            return
        self._on_failure(
            kind(f"{child.title} ended ({how}) and {refused}: see {self._run_dir}/log.jsonl.")
        )

    def _hear(self, slot: ChildSlot, message: Message) -> None:
        """Act on what a child says. An error here has no caller: it ends the run."""
        try:
            if self._remote and message["kind"] in OF_HOSTS:
                self._remote.hear(message)
            else:
                self._act_on(slot, message)
        except Exception as error:
            self._log.error("orchestrator failed", exc_info=error)
            self._on_failure(RunFailed(f"what {slot.role} {slot.index} said led to {error!r}"))

    def _act_on(self, slot: ChildSlot, message: Message) -> None:
        match message["kind"]:
            case Report.SPACES:
                if not self._sharing.hear_spaces(message["spec"]):
                    self._refuse(slot, f"--env {self._config.env} has other spaces in each worker.")
            case Report.SPEC:
                self._size_memory(message)
            case Report.READY:
                slot.has_come_up = True
                is_resumed = message.get("is_resumed", True)
                if self._is_resumed and self._config.deterministic and not is_resumed:
                    self._log.warning(
                        "a worker's environments start over: they could not be saved",
                        worker=slot.index,
                    )
                if all(s.has_come_up for s in (self.updater, *self.workers)):
                    self.have_come_up.set()
            case Report.FATAL:
                self._on_failure(RunFailed(message["message"]))
            case Report.RETIRED:
                self._memory.retire_ring(message["worker"], message["generation"])
            case _:
                self._on_report(slot.index, message)

    def _size_memory(self, spec: Message) -> None:
        """An updater has reported the network's size: make board and rings, and let the others
        attach.

        One that was restarted finds both, with the records that wait in the rings.
        """
        is_first = not self._memory.is_sized
        if is_first:
            try:
                self._memory.create_board(spec)
            except SharedMemoryTooSmall as error:
                self._on_failure(error)
                return
        self._sharing.attach_updater(self._gone)
        for slot in self.workers if is_first else ():
            self._attach(slot)

    def _attach(self, slot: ChildSlot) -> None:
        try:
            self._sharing.attach(slot)
        except (SharedMemoryTooSmall, OSError) as error:
            self._refuse(slot, str(error))

    def _refuse(self, slot: ChildSlot, reason: str) -> None:
        """A child cannot work: the run cannot start, or it is started again, when it may."""
        if slot.child is None or not self.have_come_up.is_set():
            self._on_failure(StartError(reason))
            return
        slot.child.error = reason
        slot.child.kill()
