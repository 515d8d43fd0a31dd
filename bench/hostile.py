"""Clients of one hostile address: ``python -m bench.hostile``.

The first line on standard input is JSON: ``{"port", "parts": [{"connections", "requests", "reads"}]}``. Each
connection of a part sends its requests in turn, the next one when the last was answered. With ``reads`` false
it reads only refusals, and without requests it sends nothing. A connection that the server closes is opened
again at once. It prints ``ready`` when each connection was opened once, and runs until standard input ends.
Then it prints one JSON line: the number of answers by status, and of closed connections.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import select
import socket
import struct
import sys
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle, repeat
from typing import Final, TypedDict

ADDRESS: Final = "127.0.0.9"
"""Another address than that of the honest load client."""
OPENED_A_TURN: Final = 64
READ_BYTES: Final = 1 << 18
SMALL_BUFFER: Final = 4096
"""Receive buffer of a client that does not read."""
PAUSE_S: Final = 0.1
LAST_CHUNK: Final = b"0\r\n\r\n"
LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)")
GONE: Final = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
IP_BIND_ADDRESS_NO_PORT: Final = 24


class Part(TypedDict):
    """Connections that send the same requests."""

    connections: int
    requests: list[str]
    reads: bool


@dataclass(slots=True)
class Answer:
    """The state of an answer that is being received."""

    status: int = 0
    unread: bytes = b""
    """The beginning of a head, or the last bytes of a body in chunks."""
    left: int = 0
    chunked: bool = False

    def take(self, data: bytes) -> bool:
        """Take more bytes. Returns whether the answer is complete."""
        if not self.status:
            head, end, data = (self.unread + data).partition(b"\r\n\r\n")
            if not end:
                self.unread = head
                return False
            self.status = int(head[9:12])
            lines = head.lower()
            self.chunked = b"\r\ntransfer-encoding: chunked" in lines
            length = LENGTH.search(lines)
            self.left = int(length[1]) if length else 0
            self.unread = b""
        if self.chunked:
            self.unread = (self.unread + data[-len(LAST_CHUNK) :])[-len(LAST_CHUNK) :]
            return self.unread == LAST_CHUNK
        self.left -= len(data)
        return self.left <= 0


@dataclass(slots=True)
class Kind:
    """A part while it runs: its connections take its requests in turn."""

    reads: bool
    requests: Iterator[bytes]


@dataclass(slots=True)
class Client:
    """One connection."""

    socket: socket.socket
    kind: Kind
    unsent: bytes = b""
    answer: Answer = field(default_factory=Answer)
    connected: bool = False
    waits: int = 0
    """The events that epoll reports."""


@dataclass(slots=True)
class Flood:
    """All connections, driven by one epoll."""

    port: int
    missing: deque[Kind]
    """The kinds of the connections to be opened."""
    epoll: select.epoll = field(default_factory=select.epoll)
    clients: dict[int, Client] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    opened: int = 0

    def turn(self) -> None:
        """Open missing connections; read and write what is possible now."""
        for _ in range(min(len(self.missing), OPENED_A_TURN)):
            self._open(self.missing.popleft())
        for descriptor, mask in self.epoll.poll(PAUSE_S):
            client = self.clients.get(descriptor)
            if client is not None and not self._serve(client, mask):
                self._end(client)

    def _open(self, kind: Kind) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        if not kind.reads:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        connection.bind((ADDRESS, 0))
        if connection.connect_ex(("127.0.0.1", self.port)) not in (0, errno.EINPROGRESS):
            # No port is free. Those of closed connections will be soon.
            connection.close()
            self.missing.append(kind)
            return
        self.opened += 1
        client = Client(connection, kind)
        self.clients[connection.fileno()] = client
        self.epoll.register(connection, 0)
        self._wait(client, select.EPOLLOUT)

    def _serve(self, client: Client, mask: int) -> bool:
        """Serve one connection. Returns whether it stays open."""
        if mask & GONE and not mask & select.EPOLLIN:
            return False
        try:
            if not client.connected:
                client.connected = True
                self._ask(client)
            elif mask & select.EPOLLIN:
                self._read(client)
            if client.unsent:
                client.unsent = client.unsent[client.socket.send(client.unsent) :]
                self._wait(client, select.EPOLLIN | (select.EPOLLOUT if client.unsent else 0))
        except BlockingIOError:
            return True
        except (ConnectionError, EOFError):
            return False
        return True

    def _ask(self, client: Client) -> None:
        client.answer = Answer()
        client.unsent += next(client.kind.requests)
        if not client.unsent:
            self._wait(client, 0)

    def _read(self, client: Client) -> None:
        """Raises EOFError at the end."""
        if not client.kind.reads and self._holds(client):
            return
        data = client.socket.recv(READ_BYTES)
        if not data:
            raise EOFError
        if client.answer.take(data):
            self._count(client.answer.status)
            self._ask(client)

    def _holds(self, client: Client) -> bool:
        """Whether the answer has the wanted status, and is not read from now on."""
        head = client.socket.recv(12, socket.MSG_PEEK)
        if len(head) < 12 or client.answer.status or head[9:10] not in b"12":
            return False
        self._count(int(head[9:12]))
        self._wait(client, 0)
        return True

    def _count(self, status: int) -> None:
        self.counts[str(status)] += 1

    def _wait(self, client: Client, mask: int) -> None:
        mask |= select.EPOLLRDHUP
        if mask != client.waits:
            client.waits = mask
            self.epoll.modify(client.socket, mask)

    def _end(self, client: Client) -> None:
        self.counts["closed"] += 1
        del self.clients[client.socket.fileno()]
        client.socket.close()
        self.missing.append(client.kind)


def main() -> None:
    """Run until standard input ends."""
    # The load client measures on the same core and must not wait for this process.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    told = json.loads(sys.stdin.readline())
    parts: list[Part] = told["parts"]
    missing: deque[Kind] = deque()
    for part in parts:
        requests = [request.encode() for request in part["requests"]]
        kind = Kind(part["reads"], cycle(requests) if requests else repeat(b""))
        missing.extend([kind] * part["connections"])
    wanted = len(missing)
    flood = Flood(told["port"], missing)
    while flood.opened < wanted:
        flood.turn()
    print("ready", flush=True)
    at_end = select.poll()
    at_end.register(sys.stdin, select.POLLIN)
    while not at_end.poll(0):
        flood.turn()
    print(json.dumps(flood.counts), flush=True)


if __name__ == "__main__":
    main()
