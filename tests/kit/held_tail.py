"""A way to Redis on which a node's tail can be kept waiting, and nothing else."""

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


class HeldTail(ThreadingUnixStreamServer):
    """Passes on what is said to the Redis at `redis_url` (a unix socket), and what that answers."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, redis_url: str) -> None:
        super().__init__(str(path), _Connection)
        self.redis_path = urlsplit(redis_url).path
        self.url = f"unix://{path}"
        self.may_read = threading.Event()
        self.may_read.set()
        self.tails = set[socket.socket]()
        """The tails' connections, as they come to us."""

    def cut(self) -> None:
        """The tails have to connect anew; what was on its way to them is lost."""
        for each in tuple(self.tails):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class _Connection(BaseRequestHandler):
    """One connection. It is the tail's from its first XREAD on."""

    def handle(self) -> None:
        way = cast(HeldTail, self.server)
        is_tail = threading.Event()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as redis, suppress(OSError):
            redis.connect(way.redis_path)
            threading.Thread(target=self._answer, args=(way, redis, is_tail), daemon=True).start()
            while part := self.request.recv(PART):
                if b"\r\nXREAD\r\n" in part:
                    is_tail.set()
                    way.tails.add(self.request)
                redis.sendall(part)
        way.tails.discard(self.request)

    def _answer(self, way: HeldTail, redis: socket.socket, is_tail: threading.Event) -> None:
        with suppress(OSError):
            while part := redis.recv(PART):
                if is_tail.is_set():
                    way.may_read.wait()
                self.request.sendall(part)
            self.request.shutdown(socket.SHUT_RDWR)


@contextmanager
def held_tail(redis_url: str) -> Iterator[HeldTail]:
    """One that holds nothing yet."""
    with (
        tempfile.TemporaryDirectory(prefix="hw-") as directory,
        HeldTail(Path(directory) / "redis.sock", redis_url) as way,
    ):
        serving = threading.Thread(target=way.serve_forever, daemon=True)
        serving.start()
        try:
            yield way
        finally:
            way.may_read.set()
            way.shutdown()
            serving.join()
