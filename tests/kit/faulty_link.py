"""A way to Redis that breaks, or holds, a connection on which certain bytes are sent."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingUnixStreamServer
from typing import cast
from urllib.parse import urlsplit

PART = 65_536


class FaultyWay(ThreadingUnixStreamServer):
    """Passes on what is said to the Redis at `redis_url` (a unix socket), and what that answers."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, redis_url: str) -> None:
        super().__init__(str(path), _Connection)
        self.redis_path = urlsplit(redis_url).path
        self.url = f"unix://{path}"
        self.cuts = b""
        """A connection on which this is sent is cut before it arrives. Nothing: none is."""
        self.holds = b""
        """A connection on which this is sent waits until `goes_on`."""
        self.held = threading.Event()
        self.goes_on = threading.Event()


class _Connection(BaseRequestHandler):
    def handle(self) -> None:
        way = cast(FaultyWay, self.server)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as redis, suppress(OSError):
            redis.connect(way.redis_path)
            answering = threading.Thread(target=self._answer, args=(redis,), daemon=True)
            answering.start()
            while part := self.request.recv(PART):
                if way.cuts and way.cuts in part:
                    break
                if way.holds and way.holds in part:
                    way.held.set()
                    way.goes_on.wait()
                redis.sendall(part)
            for each in (redis, self.request):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            answering.join()

    def _answer(self, redis: socket.socket) -> None:
        with suppress(OSError):
            while part := redis.recv(PART):
                self.request.sendall(part)


@contextmanager
def faulty_way(redis_url: str) -> Iterator[FaultyWay]:
    with (
        tempfile.TemporaryDirectory(prefix="hw-") as directory,
        FaultyWay(Path(directory) / "redis.sock", redis_url) as way,
    ):
        serving = threading.Thread(target=way.serve_forever)
        serving.start()
        try:
            yield way
        finally:
            way.goes_on.set()
            way.shutdown()
            serving.join()
