"""The asyncio class that owns a run: start, watch, stop.

It imports no torch, and knows its children only as an engine. All that ends a run goes through `_end`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

from aa2c.checkpoints.files import CheckpointFiles
from aa2c.checkpoints.resume import differences, dir_to_resume, read_to_resume, tell_of_resuming
from aa2c.config.config import Config
from aa2c.engine import Engine, LagHistogram
from aa2c.envs.recipes import warn_without_recipe
from aa2c.errors import Aa2cError, RunFailed, StartError
from aa2c.host.engine import LocalEngine, Registered, with_code
from aa2c.host.resting import has_learned
from aa2c.log import EventDict, LogFile, make_logger
from aa2c.ports import Message, Report
from aa2c.run import files
from aa2c.run.beforehand import require_importable, require_possible
from aa2c.run.callback import Caller, Event
from aa2c.run.controls import HEARD, Controls
from aa2c.run.history import RunHistory
from aa2c.run.progress import ProgressWatch
from aa2c.run.reports import log_report
from aa2c.run.status import TRAINING_STATES, RunState, Status, how_ended, make_status, state_in
from aa2c.web.prometheus import RunCollector
from aa2c.web.server import Served, Server, open_socket

BUDGET_CHECK_S = 0.1
SAMPLE_S = 1.0

Callback = Callable[[Event, Status, "Orchestrator"], object]


class Orchestrator:
    """A run. `async with Orchestrator(config) as run: await run.wait()`.

    With `http` it also serves the page, /status and /metrics at `run.url`, and controls to who has
    `run.token`. With `resume`, a run or one of its checkpoints, it continues in that run's directory.
    `run.controls` are the same for a program. It installs no signal handler; several may run in one loop.
    `on_event` sees what it logs; `callback(event, status, run)` is called each "second", "evaluation" and
    "checkpoint", and at the "end": its False or error ends the run. Raises `ConfigError`.
    """

    def __init__(
        self,
        config: Config,
        *,
        http: bool = False,
        resume: str | Path | None = None,
        on_event: Callable[[EventDict], None] | None = None,
        callback: Callback | None = None,
    ) -> None:
        require_possible(config)
        if resume is None:
            warn_without_recipe(config)
        self.config = config
        self.id = secrets.token_hex(4)
        self.error: Aa2cError | None = None
        self.token: str | None = secrets.token_urlsafe(32) if http else None
        self._phase: RunState = "starting"
        self._resume = Path(resume) if resume is not None else None
        self._on_event = on_event
        self._callback = Caller(callback, self, self._end)
        self._saved: Path | None = None
        self._server: Server | None = None
        self._main: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._is_cut_short = asyncio.Event()
        self._final_status: Status | None = None
        self._final_lag_histogram: LagHistogram | None = None

    async def __aenter__(self) -> Orchestrator:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Start everything; returns while the children are coming up. Raises for what is seen before."""
        await require_importable(self.config)
        listening = open_socket(self.config) if self.token else None
        try:
            self.config, registered = with_code(self.config)
            saved = read_to_resume(self._resume) if self._resume else None
            resumed = saved and dir_to_resume(saved, self.config)
            self.dir = resumed or files.make_run_dir(self.config)
            with files.undone_if_it_fails(self.dir, is_new=saved is None):
                await self._open(saved, registered)
        except BaseException:
            if listening is not None:
                listening.close()
            raise
        self._main = asyncio.create_task(self._run(), name=f"aa2c-run-{self.id}")
        if listening is not None:
            await self._serve(listening)

    async def _open(self, saved: CheckpointFiles | None, registered: Registered) -> None:
        """History, log and engine of the run. What fails here leaves no file open."""
        counts = saved.counts if saved else {"env_steps": 0, "episodes": 0}
        edits = differences(self.dir, self.config)
        with contextlib.ExitStack() as opened:
            self._history = RunHistory(self.dir, self.config, counts)
            opened.callback(self._history.close)
            if saved:  # in a thread: a long history takes seconds to read
                await asyncio.to_thread(self._history.read_back, self.dir, counts["env_steps"])
            self._log_file = LogFile(self.dir / "log.jsonl")
            opened.callback(self._log_file.close)
            on_event = self._history.watch_log(self._on_event)
            self._log = make_logger(self._log_file, "orchestrator", on_event=on_event)
            if saved:
                tell_of_resuming(self._log, saved, edits)
            self._engine: Engine = LocalEngine(
                self.config, self.id, self.dir, self._log, registered=registered, resume=saved,
                on_report=self._hear, on_failure=self._end,
            )  # fmt: skip
            self._history.watch(self._engine, self._log)
            opened.pop_all()
        self._counters = self._engine.telemetry
        self._progress = ProgressWatch(self.config.no_progress_s, self._engine, self._log)
        self.controls = Controls(
            self.config, self._engine, note=self._note, phase=lambda: self._phase, end=self._end
        )

    async def _serve(self, listening: socket.socket) -> None:
        assert self.token is not None
        collector = RunCollector(self.status, self._lag_histogram)
        served = Served(self.status, self._history.documents, collector, self.controls, self.token)
        self._server = Server(listening, self.config, served, self._log)
        try:
            await self._server.start()
        except BaseException:
            await self.close()
            raise
        files.write_access(self.dir, self._server.url, self.token)

    @property
    def state(self) -> RunState:
        """Where the run is in its life."""
        return state_in(self._phase, lambda: self.controls.is_paused, self._engine)

    @property
    def url(self) -> str | None:
        """Where the page is, if there is one."""
        return self._server.url if self._server else None

    async def ready(self) -> None:
        """Wait until all children have come up, or the budget is used up without the last of them.

        Raises `StartError` if the run is stopped before, or what made it fail.
        """
        ready, main = self._engine.have_come_up, self._main_task()
        running = asyncio.ensure_future(ready.wait())
        try:
            await asyncio.wait([running, main], return_when=asyncio.FIRST_COMPLETED)
        finally:
            running.cancel()
        if not ready.is_set():
            progress = (await self.wait())["progress"]
            if progress["env_steps"] < self.config.total_env_steps:
                raise StartError("the run was stopped before it came up.")

    async def wait(self) -> Status:
        """Wait for the end of the run; returns the last status. Raises what made it fail."""
        await asyncio.shield(self._main_task())
        if error := self._callback.error or self.error:
            raise error
        return self.status()

    async def stop(self) -> Status:
        """End the run, with a last checkpoint, and wait for its end as `wait` does."""
        self._main_task()
        self._end()
        return await self.wait()

    async def close(self) -> None:
        """Stop what still runs and give everything back; at once if cancelled meanwhile."""
        try:
            if self._main is not None:
                self._end()
                await self._finish(self._main)
        finally:
            await self._close_server()

    async def _finish(self, main: asyncio.Task[None]) -> None:
        """Wait for the end of the run, however often the waiting is cancelled."""
        cancelled = False
        while not main.done():
            try:
                await asyncio.shield(main)
            except asyncio.CancelledError:
                cancelled = True
                self._engine.kill()
                main.cancel()
        if cancelled:
            raise asyncio.CancelledError

    async def _close_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            files.remove_address(self.dir)
            await server.close()

    def _main_task(self) -> asyncio.Task[None]:
        if self._main is not None:
            return self._main
        raise RuntimeError("the run has not been started: use 'async with', or start()")

    async def _run(self) -> None:
        try:
            self._log.info("start", run=self.id, dir=str(self.dir), env=self.config.env_name)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sample())
                noting = tasks.create_task(self._note_running())
                self._engine.start(tasks)
                await self._ending.wait()
                noting.cancel()
                await self.controls.finish_round()
                self._phase = "stopping"
                await self._engine.stop(lambda: self.controls.tell_score(self._history.returns))
                self.error = self.error or self._engine.failure(is_saved=bool(self._saved))
                self._history.end_training()
                await self._evaluate_saved()
                self._engine.end()
        except* Exception as group:
            self._log.error("orchestrator failed", exc_info=group)
            self._end(RunFailed(f"the orchestrator failed: {group.exceptions[0]!r}"))
        finally:
            self._phase = how_ended(self.error, self._budget_is_used_up())
            error = str(self.error or "")
            self._log.info(self._phase, env_steps=self._counters.env_steps, error=error)
            await self._release()
            self._callback.tell("end")

    async def _evaluate_saved(self) -> None:
        """A run that has used up its budget ends with an evaluation of what it saves."""
        is_off = not self._engine.settings.now().eval_interval_s
        if self._saved is None or self.error or is_off or self._is_cut_short.is_set():
            return
        self._log.info("evaluating the final checkpoint (Ctrl-C skips this)", act="evaluation")
        await self._engine.evaluate(self._saved, self._is_cut_short)
        if self._is_cut_short.is_set():
            self._log.info("the evaluation was skipped", act="evaluation")

    def _end(self, error: Aa2cError | None = None) -> None:
        """End the run now: as failed, if an error is given and nothing ended it before."""
        if not self._ending.is_set():
            self.error = error
        self._ending.set()
        self._is_cut_short.set()

    async def _sample(self) -> None:
        """Watch the budget; keep rates and records of them."""
        next_sample = 0.0
        while not self._ending.is_set():
            if self._engine.updater.state == "running" and self._budget_is_used_up():
                self._ending.set()
            now = time.monotonic()
            if now >= next_sample:
                next_sample = now + SAMPLE_S
                try:
                    self._look()
                except Exception as error:  # ours: the run still ends as it should
                    self._log.error("orchestrator failed", exc_info=error)
                    self._end(RunFailed(f"the orchestrator failed: {error!r}"))
            await asyncio.sleep(BUDGET_CHECK_S)

    def _look(self) -> None:
        self._engine.sample()
        self.controls.tell_score(self._history.returns)
        self._progress.look(is_training=self.state in TRAINING_STATES)
        self._history.add_row(self.status())
        self._callback.second()

    def _budget_is_used_up(self) -> bool:
        of = self._counters
        done = of.updater.count("env_steps") if self.config.deterministic else of.env_steps
        return done >= self.config.total_env_steps and has_learned(of.updater)

    def _note(self, kind: str, text: str) -> None:
        """Keep what the run's owner did, or what it had to do by itself."""
        (self._log.warning if kind == "rollback" else self._log.info)(text, act=kind)
        self._history.add_mark(self._counters.env_steps, kind, text)

    def _hear(self, child: int, message: Message) -> None:
        """What children say of the run itself."""
        match message["kind"]:
            case Report.EPISODES | Report.EVALUATED:
                self._history.hear(self._counters.env_steps, child, message)
            case kind if kind in HEARD:
                self.controls.hear(message)
            case Report.SAVED:
                self._saved = Path(message["path"])
            case _:
                log_report(self._log, message)
        self._callback.hear(message)

    async def _note_running(self) -> None:
        """The run is running once its children have come up."""
        await self._engine.have_come_up.wait()
        if not self._ending.is_set():
            self._phase = "running"
            self._log.info("running", after_s=round(self._history.uptime_s, 2))

    async def _release(self) -> None:
        """Give everything back, the log at last: trackers may tell of losses. At once if cancelled."""
        with contextlib.closing(self._log_file):
            self._engine.kill()
            try:
                self._final_lag_histogram = self._counters.lag_histogram()
                self._final_status = self.status()
                self._history.add_row(self._final_status)
            finally:
                self._engine.release()
                self._history.close()
            if (task := asyncio.current_task()) is None or not task.cancelling():
                await self._history.drain()
        if self._resume is None:
            files.undo_failed_start(self.dir, self.error, self._final_status)

    def _lag_histogram(self) -> LagHistogram:
        return self._final_lag_histogram or self._counters.lag_histogram()

    def status(self) -> Status:
        """What /status serves: one document, schema 1 (see `make_status`)."""
        if self._final_status is not None:
            return self._final_status
        self._main_task()
        run = {
            "id": self.id,
            "name": self.dir.name,
            "dir": str(self.dir),
            "state": self.state,
            "started_at": self._history.started_at,
            "uptime_s": round(self._history.uptime_s, 3),
            "error": str(self.error) if self.error else None,
            "stall": self._progress.stall,
        }
        returns = self._history.returns, self._history.tests
        status = make_status(run, self.config, self._engine, returns)
        return status | self.controls.told() | self._history.told(status)
