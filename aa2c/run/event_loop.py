"""The event loop of `serve`, and `asyncio.run` that also works inside a running one, as in a notebook."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

T = TypeVar("T")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run_here(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; Ctrl-C cancels it, waits for it, and is raised.

    In a running event loop this blocks that loop, and the coroutine has one of its own in a thread.
    """
    if not _is_running():
        return asyncio.run(main)
    started: Future[Callable[[], object]] = Future()
    ended: Future[T] = Future()
    thread = threading.Thread(target=_run, args=(main, started, ended), name="aa2c", daemon=True)
    thread.start()
    try:
        return ended.result()
    except KeyboardInterrupt:
        while not ended.done():
            with contextlib.suppress(KeyboardInterrupt):  # an impatient user presses it again
                started.result()()
                wait([ended])
        raise
    finally:
        thread.join()


def _is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run(
    main: Coroutine[Any, Any, T], started: Future[Callable[[], object]], ended: Future[T]
) -> None:
    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        started.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
        return await main

    try:
        ended.set_result(asyncio.run(cancellable()))
    except BaseException as error:  # raised by ended.result()
        ended.set_exception(error)
