"""Environments in processes of their own, stepped at the same time: --vectorization async.

Each process serves one environment to its worker, through a pipe. It ends when the worker closes its
end, and so also when the worker is killed. All are forked from one process per worker that has imported
what they need and has no threads.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import setproctitle
from numpy.typing import NDArray

from aa2c.config.config import Config
from aa2c.envs.failure import ENV_ERRORS, explain_failures, one_line
from aa2c.envs.find import find_env, make_gymnasium_vector
from aa2c.envs.masks import Mask
from aa2c.envs.plain import CLOSE_ALL_S, CLOSE_S, Obs, Vector, VectorStep, common_spec
from aa2c.envs.registered import register, registered_here
from aa2c.envs.state import CannotBeSaved
from aa2c.errors import Aa2cError


class AsyncVector:
    """B environments, each in a process of its own.

    Raises `RuntimeError` where a process has ended, and else what its environment raised.
    """

    def __init__(self, config: Config, num_envs: int, tick: Callable[[], None]) -> None:
        """Make the environments, all at once; `tick` is called after each that is there."""
        self._tick = tick
        self.num_envs = num_envs
        self.mask: Mask | None = None
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        known = registered_here(config.env)
        self._processes: list[_EnvProcess] = []
        try:
            for i in range(num_envs):
                self._processes.append(_EnvProcess(context, i, config, known))
            told = self._answers()
            self.spec = common_spec(config.env_flag, [spec for spec, _ in told])
        except BaseException:
            self.close()
            raise
        self.metadata: dict[str, Any] = told[0][1]

    def _answers(self) -> list[Any]:
        """What each process gave; a failure only after all have been heard, so that none is left over."""
        answers: list[Any] = []
        for process in self._processes:
            answers.append(process.answer())
            self._tick()
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        values, masks = zip(*answers, strict=True)
        self.mask = None if masks[0] is None else np.concatenate(masks)
        return list(values)

    def reset(self, seed: int) -> Obs:
        for i, process in enumerate(self._processes):
            process.ask("reset", seed + i)
        return np.concatenate(self._answers())

    def step(self, actions: NDArray[Any]) -> VectorStep:
        for i, process in enumerate(self._processes):
            process.ask("step", actions[i : i + 1])
        return _side_by_side(self._answers())

    def render(self) -> Any:
        for process in self._processes:
            process.ask("render")
        return self._answers()[0]

    def state(self) -> dict[str, Any]:
        raise CannotBeSaved("the environments are in processes of their own")

    def load_state(self, saved: dict[str, Any]) -> None:
        raise NotImplementedError  # there is no such state

    def close(self) -> None:
        deadline = time.monotonic() + CLOSE_ALL_S
        for process in self._processes:
            process.let_end()
        for process in self._processes:
            process.end(max(0.0, deadline - time.monotonic()))


def _side_by_side(steps: Sequence[VectorStep]) -> VectorStep:
    *columns, last = zip(*steps, strict=True)
    seen = [obs for obs in last if obs is not None]
    joined: list[Any] = [np.concatenate(column) for column in columns]
    return VectorStep._make([*joined, np.concatenate(seen) if seen else None])


class _EnvProcess:
    """The worker's end of one environment's process."""

    def __init__(self, context: Any, index: int, config: Config, known: dict[str, bytes]) -> None:
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=serve_env, args=(theirs, index, config, known), name=f"env-{index}"
        )
        self._process.start()
        theirs.close()

    def ask(self, call: str, *arguments: Any) -> None:
        """Let it make this call; a process that has ended will be missed when it shall answer."""
        try:
            self._connection.send((call, arguments))
        except OSError:
            return

    def answer(self) -> Any:
        """What its call gave and which actions are legal then, or the exception that it raised."""
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            self._process.join(CLOSE_S)
            code = self._process.exitcode
            return RuntimeError(f"the process of {self._process.name} has ended, exit code {code}")

    def let_end(self) -> None:
        self._connection.close()

    def end(self, timeout_s: float) -> None:
        """Wait so long, and kill it then."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()


def serve_env(connection: Connection, index: int, config: Config, known: dict[str, bytes]) -> None:
    """In the process itself: make the environment, and do as it is told until nobody is there."""
    setproctitle.setproctitle(f"aa2c-env-{index}")
    envs: Vector | None = None
    try:
        register(known)
        with explain_failures(config.env_flags):
            envs = make_gymnasium_vector(config, find_env(config)[0], 1)
        connection.send(((envs.spec, envs.metadata), envs.mask))
        while True:
            call, arguments = connection.recv()
            connection.send((getattr(envs, call)(*arguments), envs.mask))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except ENV_ERRORS as error:
        known_kind = error if isinstance(error, Aa2cError) else RuntimeError(one_line(error))
        with contextlib.suppress(OSError):  # nobody is there to hear it
            connection.send(known_kind)
    finally:
        if envs is not None:
            envs.close()
