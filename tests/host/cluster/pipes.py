"""Hosts as processes of this machine, each at the other end of a socket: a cluster without Ray.

What travels, how often and in what order is as with Ray; only calls and answers are pickled here.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import socket
import struct
import subprocess
import sys

from aa2c.errors import StartError
from aa2c.host.launch import _absolute

HERE = "tests.host.cluster.pipes"
ROOM = "TEST_CLUSTER_ROOM"  # bytes of its object stores
DOWN = "TEST_CLUSTER_IS_DOWN"  # names a file; while it is there, the cluster is not


async def read(reader):
    (size,) = struct.unpack("Q", await reader.readexactly(8))
    return pickle.loads(await reader.readexactly(size))


def write(writer, what):
    data = pickle.dumps(what, protocol=5)
    writer.write(struct.pack("Q", len(data)) + data)


class PipeLink:
    """A host's share, by calls with a number, whose answers may come in any order."""

    def __init__(self, process, name):
        self.process = process
        self.name, self.address = name, f"pid {process.pid}"
        self._calls = {}
        self._numbers = itertools.count()

    async def connect(self, ours):
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        self._hearing = asyncio.create_task(self._hear())

    async def _hear(self):
        try:
            while True:
                number, answer, error = await read(self._reader)
                call = self._calls.pop(number)
                if not call.done():
                    call.set_exception(error) if error else call.set_result(answer)
        except (OSError, EOFError) as error:
            for call in self._calls.values():
                if not call.done():
                    call.set_exception(ConnectionError(f"the host ended: {error!r}"))
            self._calls.clear()

    async def _call(self, method, *arguments):
        number = next(self._numbers)
        if self._hearing.done():
            raise ConnectionError("the host ended")
        self._calls[number] = asyncio.get_running_loop().create_future()
        write(self._writer, (number, method, arguments))
        return await self._calls[number]

    async def begin(self, share):
        await self._call("begin", share)

    async def tell(self, frame, version, params):
        await self._call("tell", frame, params)

    async def collect(self):
        return await self._call("collect")

    async def end(self):
        await self._call("end")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self._hearing.cancel()
        self._writer.close()


class PipeCluster:
    """Takes the place of `RayCluster` in `aa2c.host.engine.CLUSTERS`."""

    def __init__(self, config, run_dir):
        self._count = itertools.count()
        self._links = []

    def open(self):
        if os.path.exists(os.environ.get(DOWN, "")):
            raise StartError("nobody answers")

    async def start(self, share):
        ours, theirs = socket.socketpair()
        code = f"from {HERE} import serve; serve({theirs.fileno()})"
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(_absolute(sys.path))},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        link = PipeLink(process, f"host-{next(self._count)}")
        self._links.append(link)
        await link.connect(ours)
        await link.begin(share)
        return link

    async def is_there(self):
        return not os.path.exists(os.environ.get(DOWN, ""))

    async def room(self):
        return int(os.environ.get(ROOM, 2**40))

    def close(self):
        for link in self._links:
            link.kill()


def serve(number):
    """A host's program."""
    asyncio.run(_serve(number))


async def _serve(number):
    from aa2c.host.cluster.share import Share

    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=number))
    share = None

    async def answer(call, method, arguments):
        nonlocal share
        try:
            if method == "begin":
                share, result = Share(*arguments, on_end=lambda: os._exit(0)), None
            elif method == "end":
                result = share.end()
            else:
                result = await getattr(share, method)(*arguments)
            write(writer, (call, result, None))
        except Exception as error:
            write(writer, (call, None, error))

    tasks = set()
    while True:
        try:
            task = asyncio.create_task(answer(*await read(reader)))
        except (OSError, EOFError):
            share.end()
        tasks.add(task)
        task.add_done_callback(tasks.discard)
