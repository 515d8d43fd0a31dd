"""A proxy in front of Redis that holds or cuts connections by what is sent on them."""

from __future__ import annotations

import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingUnixStreamServer
from typing import Final, cast
from urllib.parse import urlsplit

from homewire.logins.store import REDEEM_LOGIN_TOKEN
from homewire.users.registrations import VERIFY_EMAIL
from homewire.users.verification import REDEEM_CODE, REDEEM_TOKEN

SCRIPTS: Final = {
    "redeem_login_token": REDEEM_LOGIN_TOKEN.sha.encode(),
    "verify_email": VERIFY_EMAIL.sha.encode(),
    "redeem_code": REDEEM_CODE.sha.encode(),
    "redeem_token": REDEEM_TOKEN.sha.encode(),
}
"""What is sent when one of these scripts runs."""
PART: Final = 65_536
XREAD: Final = b"\r\nXREAD\r\n"
"""The command by which a connection is that of a stream reader."""


class RedisLink(ThreadingUnixStreamServer):
    """Passes on the bytes between clients and the Redis at `redis_url` (a unix socket)."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, redis_url: str) -> None:
        super().__init__(str(path), _Connection)
        self.redis_path = urlsplit(redis_url).path
        self.url = f"unix://{path}"
        self.cuts = b""
        """A connection on which this is sent is cut before it arrives. Empty: none is."""
        self.holds = b""
        """A connection on which this is sent waits until `goes_on`."""
        self.held = threading.Event()
        self.goes_on = threading.Event()
        self.may_read = threading.Event()
        """While this is not set, no stream reader gets a reply."""
        self.may_read.set()
        self.readers = set[socket.socket]()
        """The connections of stream readers, as they come to us."""

    def cut_readers(self) -> None:
        """The stream readers have to connect anew; replies on their way to them are lost."""
        for each in tuple(self.readers):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class _Connection(BaseRequestHandler):
    """One connection. It is a stream reader's from its first XREAD on."""

    def handle(self) -> None:
        link = cast(RedisLink, self.server)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as redis, suppress(OSError):
            redis.connect(link.redis_path)
            replies = threading.Thread(target=self._pass_replies, args=(link, redis), daemon=True)
            replies.start()
            self._pass_commands(link, redis)
            for each in (redis, self.request):
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            replies.join()
        link.readers.discard(self.request)

    def _pass_commands(self, link: RedisLink, redis: socket.socket) -> None:
        while part := self.request.recv(PART):
            if XREAD in part:
                link.readers.add(self.request)
            if link.cuts and link.cuts in part:
                return
            if link.holds and link.holds in part:
                link.held.set()
                link.goes_on.wait()
            redis.sendall(part)

    def _pass_replies(self, link: RedisLink, redis: socket.socket) -> None:
        with suppress(OSError):
            while part := redis.recv(PART):
                if self.request in link.readers:
                    link.may_read.wait()
                self.request.sendall(part)
            self.request.shutdown(socket.SHUT_RDWR)


@contextmanager
def redis_link(redis_url: str) -> Iterator[RedisLink]:
    """One that holds and cuts nothing yet."""
    with (
        tempfile.TemporaryDirectory(prefix="hw-") as directory,
        RedisLink(Path(directory) / "redis.sock", redis_url) as link,
    ):
        serving = threading.Thread(target=link.serve_forever, daemon=True)
        serving.start()
        try:
            yield link
        finally:
            link.goes_on.set()
            link.may_read.set()
            link.shutdown()
            serving.join()
