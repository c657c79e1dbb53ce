"""Hosts on the nodes of a Ray cluster: one actor for each share of the workers.

Ray, which this file and `ray_link` know, is imported in the engine's process and on hosts only. An actor
is never restarted and no call is made twice: what fails is lost, and the bridge starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import platform
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aa2c.config.config import Config
from aa2c.errors import StartError
from aa2c.host.cluster import cleaner
from aa2c.host.cluster.frames import ShareSpec
from aa2c.host.memory import ROOM_FOR_WORKERS
from aa2c.shared_model import Vector
from aa2c.version import __version__

OBJECT_STORE_BYTES = 512 * 2**20  # of a Ray of its own
CONNECT_S = 5.0
LAST_WORD_S = 1.0  # for the reply that says why
TOKEN_S = 60.0  # for a new interpreter that imports Ray and asks
SMALL_BYTES = 90_000  # Ray sends up to 100 KB within a call, which takes a fifth of the CPU time
MOST_CALLS = 4  # at once to an actor: one of each kind, and room
STORE_IS_FULL = (
    "the object store of a node is full, and so is the disk that Ray would use: start nodes with a larger "
    "--object-store-memory, or with room on their disk"
)
_AUTH = "RAY_AUTH_MODE"

# Asked without a token, by an interpreter that has never had one: an answer means that nobody needs any.
_REFUSED = 3
_PROBE = f"""\
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).internal_kv_keys(b"", namespace=None, timeout=5)
except AuthenticationError:
    sys.exit({_REFUSED})
"""


def versions() -> dict[str, str]:
    """What must be the same everywhere."""
    import ray

    return {"aa2c": __version__, "Ray": ray.__version__, "Python": platform.python_version()}


def mismatch(wanted: dict[str, str], found: dict[str, str], host: str) -> str:
    """Why a host with these versions is refused, or ''."""
    for name, version in wanted.items():
        if found.get(name) != version:
            return (
                f"{host} has {name} {found.get(name)}, and {name} {version} is wanted: install the same "
                "versions on all machines."
            )
    return ""


async def given(params: list[Any]) -> Any:
    """The parameters of a call: themselves, or what a reference stands for; None if there are none."""
    import ray

    for param in params:
        return await param if isinstance(param, ray.ObjectRef) else param
    return None


class HostActor:
    """What runs in an actor's process on a node."""

    async def begin(self, wanted: dict[str, str], pickled: bytes) -> str:
        """Start the share, which only its driver can have pickled. Returns why not, or ''."""
        if refused := mismatch(wanted, versions(), socket.gethostname()):
            return refused
        from aa2c.host.cluster.share import Share

        spec: ShareSpec = pickle.loads(pickled)
        loop = asyncio.get_running_loop()

        def end_soon() -> None:
            loop.call_later(LAST_WORD_S, os._exit, 0)

        self._share = Share(spec, on_end=end_soon)
        return ""

    async def where(self) -> tuple[str, str]:
        """Name and address of this host."""
        import ray

        return socket.gethostname(), ray.util.get_node_ip_address()

    async def tell(self, frame: bytes, params: list[Any]) -> None:
        """See `Share`; the parameters may come as a reference, so that a node fetches them once."""
        await self._share.tell(frame, await given(params))

    async def collect(self) -> tuple[bytes, list[Any]]:
        """See `Share`."""
        return await self._share.collect()

    async def end(self) -> None:
        """Ends the actor's process, too: its caller hears that it died."""
        self._share.end()


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Raises `ConnectionError` with one line for what Ray tells in many."""
    from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayTaskError

    try:
        yield
    except (ObjectStoreFullError, OutOfDiskError) as error:
        raise ConnectionError(STORE_IS_FULL) from error
    except RayTaskError as error:
        raise ConnectionError(f"it failed: {error.cause!r}") from error


class RayLink:
    """An actor, from the engine's process."""

    def __init__(self, cluster: RayCluster, actor: Any) -> None:
        self._cluster = cluster
        self.actor = actor
        self.name = self.address = ""

    async def tell(self, frame: bytes, version: int, params: Vector | None) -> None:
        with in_words():
            sent = [] if params is None else [self._cluster.sendable(version, params)]
            await self.actor.tell.remote(frame, sent)

    async def collect(self) -> tuple[bytes, list[Any]]:
        with in_words():
            frame, blocks = await self.actor.collect.remote()
        return frame, blocks

    async def end(self) -> None:
        await self.actor.end.remote()

    def kill(self) -> None:
        import ray

        with contextlib.suppress(Exception):  # it is gone, or the cluster is
            ray.kill(self.actor)


class RayCluster:
    """A running Ray cluster, or one of this run's own on this machine."""

    def __init__(self, config: Config, run_dir: Path) -> None:
        self._config = config
        self._run_dir = run_dir
        self._token: Path | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._shared: Any = None  # the parameters put last; calls under way keep those before
        self._shared_version = 0
        self._head = ""

    def open(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ["RAY_DEDUP_LOGS"] = "0"
        address = self._config.address
        if address and not _answers(address):
            raise StartError(
                f"--engine ray: nobody answers at {address}: is Ray's head running there?"
            )
        if address and not self._config.ray_insecure:
            require_token(address)
        if not address:
            self._temporary = tempfile.TemporaryDirectory(prefix="aa2c-ray-")
            cleaner.start(
                "", self._temporary.name
            )  # Ray's processes end with this one, its files stay
        if not address and _AUTH not in os.environ:
            self._make_token()
        with _signals_as_usual():
            self._connect(address)

    def _make_token(self) -> None:
        """The token of a Ray of its own, which only this user can read."""
        path = self._token = self._run_dir / ".ray-token"
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        os.environ |= {_AUTH: "token", "RAY_AUTH_TOKEN_PATH": str(path)}

    def _connect(self, address: str) -> None:
        import ray  # not before: it takes its token when it is imported

        most_workers = self._config.workers + ROOM_FOR_WORKERS
        hosts = -(-most_workers // self._config.workers_per_host)
        own = {
            "num_cpus": hosts + 1,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "_temp_dir": self._temporary.name if self._temporary else None,
        }
        try:
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level="ERROR",
                **({} if address else own),
            )
            self._head = ray.get_runtime_context().gcs_address
        except Exception as error:  # Ray's own kinds, OSError, RuntimeError, ValueError
            where = f"the Ray cluster at {address}" if address else "a Ray of its own"
            ray.shutdown()
            raise StartError(f"--engine ray cannot connect to {where}: {_why(error)}") from None

    async def start(self, share: ShareSpec) -> RayLink:
        import ray

        options: dict[str, Any] = {
            "num_cpus": 1,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": MOST_CALLS,
            "scheduling_strategy": "SPREAD",
        }
        link = RayLink(self, ray.remote(HostActor).options(**options).remote())
        try:
            with in_words():
                refused = await link.actor.begin.remote(versions(), pickle.dumps(share))
                if refused:
                    raise StartError(f"--engine ray: {refused}")
                link.name, link.address = await link.actor.where.remote()
        except BaseException:
            link.kill()
            raise
        return link

    async def is_there(self) -> bool:
        return await asyncio.to_thread(_answers, self._head)

    async def room(self) -> int:
        import ray

        living = [node for node in await asyncio.to_thread(ray.nodes) if node["Alive"]]
        return int(min(node["Resources"].get("object_store_memory", 0) for node in living))

    def sendable(self, version: int, params: Vector) -> Any:
        """Small parameters as they are; of others a reference: they are put once for all hosts."""
        import ray

        if params.nbytes <= SMALL_BYTES:
            return params
        if version != self._shared_version:
            self._shared, self._shared_version = ray.put(params), version
        return self._shared

    def close(self) -> None:
        import ray

        self._shared = None
        ray.shutdown()
        if self._token:
            self._token.unlink(missing_ok=True)
        if self._temporary:
            self._temporary.cleanup()


@contextlib.contextmanager
def _signals_as_usual() -> Iterator[None]:
    """What Ray starts must not inherit a blocked SIGTERM, with which Ray ends it."""
    mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _answers(address: str) -> bool:
    """Whether somebody listens at HOST:PORT. Ray ends a process that asks it for one who does not."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except ValueError:
        return True  # not a form of address that is known here
    except OSError:
        return False
    return True


def _why(error: Exception) -> str:
    """What Ray says, on one line; of other versions all that it says, which is a list."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [repr(error)]
    is_list = lines[0].startswith("Version mismatch")
    return " ".join(lines) if is_list else lines[0]


def require_token(address: str) -> None:
    """Refuse a cluster that answers without a token. Raises `StartError`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    try:
        result = subprocess.run(
            [sys.executable, "-c", _PROBE, address],
            env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TOKEN_S,
        )
    except subprocess.TimeoutExpired:
        raise StartError(
            f"it took more than {TOKEN_S:.0f} s to ask whether the Ray cluster at {address} wants a token: "
            "start again when this machine is less busy."
        ) from None
    if result.returncode == 0:
        raise StartError(
            f"the Ray cluster at {address} asks for no token, so that whoever reaches it runs code there: "
            "start its nodes with RAY_AUTH_MODE=token, or say --ray-insecure on a network of your own."
        )
    if result.returncode != _REFUSED:
        said = result.stderr.decode(errors="replace").strip().splitlines() or ["nothing was said"]
        raise StartError(
            f"it cannot be told whether the Ray cluster at {address} wants a token ({said[-1][:300]}): "
            "say --ray-insecure if you know that it does."
        )
