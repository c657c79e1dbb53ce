"""`top`: the display of `serve`, for a run that was started elsewhere, from its /status.

Read-only. A lost connection is retried for a while; then the run has probably ended, and the last
status is shown.
"""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aa2c.cli.terminal import Terminal
from aa2c.config.config import Config
from aa2c.errors import ConfigError, RunFailed
from aa2c.run.files import read_access
from aa2c.run.status import ENDED_STATES, SCHEMA, Status
from aa2c.run.words import PLAIN_S, progress_line

EVERY_S = 1.0
TIMEOUT_S = 5.0
LOST_S = 20.0  # without an answer for this long, the run has ended
MOST_BYTES = 8 * 1024 * 1024


def watch(run: str, url: str, token: str) -> None:
    """Show the run in a directory, or at an address, by default serve's own. Raises as `watch_run`."""
    if not run or "://" in run:
        watch_run(run or url or f"http://127.0.0.1:{Config().port}/", token)
        return
    run_dir = Path(run)
    address, its_token = read_access(run_dir)
    if not run_dir.exists():
        raise ConfigError(
            f"{run} is neither a run's directory nor an address such as http://127.0.0.1:8420/."
        )
    if not address:
        raise ConfigError(
            f"{run} is not being served: python -m aa2c runs {run} says what became of it."
        )
    watch_run(address, token or its_token, name=run_dir.absolute().name)


def watch_run(url: str, token: str, *, name: str = "") -> None:
    """Show a run until it ends. Raises `ConfigError` if there is none, `RunFailed` if it fails."""
    if not _is_address(url):
        raise ConfigError(f"--url {url} is not an address such as http://127.0.0.1:8420/.")
    terminal = Terminal(quiet=False)
    address, _, token_in_it = url.partition("#token=")
    address = address.partition("#")[0].rstrip("/") + "/"
    token = token or token_in_it

    def ask() -> Status:
        return read_status(address, token)

    status = ask()
    if name not in ("", status["run"]["name"]):
        raise ConfigError(f"{name} is no longer served: another run is at its address, {url}.")
    terminal.print(f"watching  {status['run']['env']}, mode {status['run']['mode']}, at {address}")
    try:
        if terminal.is_live:
            status = _show_live(terminal, ask, status, address)
        else:
            status = _show_lines(terminal, ask, status)
        terminal.end(status)
    except KeyError as missing:
        raise ConfigError(
            f"--url {url} is a run of another version of aa2c: its status has no {missing}."
        ) from None
    if status["run"]["state"] == "failed":
        raise RunFailed(status["run"]["error"])


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _show_live(terminal: Terminal, ask: Callable[[], Status], status: Status, url: str) -> Status:
    with terminal.live() as live:
        while status["run"]["state"] not in ENDED_STATES:
            live.update(terminal.display(status, url), refresh=True)
            time.sleep(EVERY_S)
            if (newest := _again(terminal, ask)) is None:
                break
            status = newest
    return status


def _show_lines(terminal: Terminal, ask: Callable[[], Status], status: Status) -> Status:
    while status["run"]["state"] not in ENDED_STATES:
        terminal.print(progress_line(status))
        time.sleep(PLAIN_S)
        if (newest := _again(terminal, ask)) is None:
            break
        status = newest
    return status


def _again(terminal: Terminal, ask: Callable[[], Status]) -> Status | None:
    """The next status; None if the run does not answer for `LOST_S`."""
    lost_at = None
    while True:
        try:
            status = ask()
        except ConfigError as error:
            if lost_at is None:
                terminal.print(f"connection lost, retrying for {LOST_S:g} s: {error}")
                lost_at = time.monotonic()
            if time.monotonic() - lost_at > LOST_S:
                terminal.print("the run no longer answers; its last status:")
                return None
            time.sleep(EVERY_S)
        else:
            if lost_at is not None:
                terminal.print("reconnected")
            return status


def read_status(url: str, token: str) -> Status:
    """The status document at an address. Raises `ConfigError` if there is none."""
    request = urllib.request.Request(f"{url}status")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    # Not through http_proxy: a run is on this machine, or reached directly.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            status: Any = json.loads(answer.read(MOST_BYTES))
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise ConfigError(
                f"--url {url} needs the run's token: pass it as --token or in AA2C_TOKEN."
            ) from None
        raise ConfigError(f"--url {url} answers with status {error.code}: {_said(error)}") from None
    except (urllib.error.URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ConfigError(f"--url {url}: no run answers there ({reason}).") from None
    except ValueError:
        status = None
    if not isinstance(status, dict) or status.get("schema") != SCHEMA:
        raise ConfigError(f"--url {url} is not the address of an aa2c run.")
    return status


def _said(error: urllib.error.HTTPError) -> str:
    """Why it was refused: the run's own message, if any, which names the remedy."""
    with contextlib.suppress(ValueError, TypeError, KeyError, OSError, HTTPException):
        said = str(json.loads(error.read(MOST_BYTES))["error"])
        return "".join(filter(str.isprintable, said))
    return f"{error.reason}."
