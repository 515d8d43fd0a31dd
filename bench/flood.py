"""Clients that send one frame as fast as they can: ``python -m bench.flood PORT SOCKETS PATH AUTHORIZATION``.

Prints ``ready`` when all sockets are open, and sends until standard input ends. Then it prints one JSON line:
how many frames it sent and how many sockets the server closed. A closed socket is opened again at once.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field

PING = bytes((0x89, 0x80, 1, 2, 3, 4))
"""An empty ping, masked."""
MANY = PING * 10_000
READ_BYTES = 1 << 16
PAUSE_S = 0.1
"""Pause before a refused socket connects again."""


@dataclass(slots=True)
class Flood:
    """All sockets, driven by one selector."""

    port: int
    request: bytes
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    sent: int = 0
    closed: int = 0
    refused: int = 0
    offsets: dict[socket.socket, int] = field(default_factory=dict)

    def open(self) -> bool:
        """Make one handshake. Returns whether it succeeded."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.sendall(self.request)
        head = b""
        while b"\r\n\r\n" not in head and (more := connection.recv(READ_BYTES)):
            head += more
        if b" 101 " not in head[:20]:
            self.refused += 1
            connection.close()
            return False
        connection.setblocking(False)
        self.offsets[connection] = 0
        self.selector.register(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
        return True

    def turn(self) -> None:
        """Read and write what is possible now."""
        for key, mask in self.selector.select(PAUSE_S):
            connection = key.fileobj
            if isinstance(connection, socket.socket) and not self._serve(connection, mask):
                self._end(connection)

    def _serve(self, connection: socket.socket, mask: int) -> bool:
        try:
            if mask & selectors.EVENT_READ:
                said = connection.recv(READ_BYTES)
                # A close frame, as the server sends it, begins with this byte; pongs do not have it.
                if not said or b"\x88" in said:
                    return False
            if mask & selectors.EVENT_WRITE:
                start = self.offsets[connection]
                count = connection.send(memoryview(MANY)[start:])
                self.sent += count
                self.offsets[connection] = (start + count) % len(PING)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        return True

    def _end(self, connection: socket.socket) -> None:
        self.closed += 1
        del self.offsets[connection]
        self.selector.unregister(connection)
        connection.close()


def main() -> None:
    """Until standard input ends."""
    port, count, path, authorization = sys.argv[1:]
    lines = [f"GET {path} HTTP/1.1", "Host: bench", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA=="]
    request = "\r\n".join([*lines, f"Authorization: {authorization}", "", ""]).encode()
    flood = Flood(int(port), request)
    for _ in range(int(count)):
        flood.open()
    flood.selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    while not any(key.fileobj is sys.stdin for key, _ in flood.selector.select(0)):
        flood.turn()
        # One handshake a turn, so that the other sockets go on meanwhile.
        if len(flood.offsets) < int(count):
            with suppress(OSError):
                flood.open()
    print(json.dumps({"sent": flood.sent, "closed": flood.closed, "refused": flood.refused}), flush=True)


if __name__ == "__main__":
    main()
