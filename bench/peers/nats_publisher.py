"""Publishes to nats-server in its own protocol, over TCP: `python -m bench.peers.nats_publisher PORT`.

It obeys the commands that peers obey, though it is no server. At full speed it writes a turn of messages at
once, and then waits for the answer to a PING, as the clients of NATS do when they flush.
"""

from __future__ import annotations

import socket
import sys
import time

from bench.peers import common

SUBJECT = "home"
"""What everybody listens to."""


class Publisher:
    """One connection to the server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answers = self.socket.makefile("rb")
        self.socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
        self.flush(b"")

    def flush(self, lines: bytes) -> None:
        """Send, and wait until the server has read all of it. Raises ConnectionError if it refuses."""
        self.socket.sendall(lines + b"PING\r\n")
        while (answer := self.answers.readline()) != b"PONG\r\n":
            if answer == b"PING\r\n":
                self.socket.sendall(b"PONG\r\n")
            elif not answer.startswith((b"INFO ", b"+OK")):
                raise ConnectionError(f"nats-server said {answer!r}")

    def obey(self, command: common.Command) -> None:
        """Carry out one command, and say that it is done."""
        start = time.perf_counter()
        turn = 1 if command.rate > 0 else common.TURN
        for sent in range(0, command.events, turn):
            if command.rate > 0:
                time.sleep(max(0.0, start + sent / command.rate - time.perf_counter()))
            numbers = range(command.first + sent, command.first + min(sent + turn, command.events))
            self.flush(b"".join(line(number, command.size) for number in numbers))
        common.answer(command, start)


def line(sequence: int, size: int) -> bytes:
    """One message as the protocol has it."""
    payload = common.message(sequence, size)
    return f"PUB {SUBJECT} {len(payload)}\r\n{payload}\r\n".encode()


def main() -> None:
    """Publish until standard input ends."""
    port = int(sys.argv[1])
    publisher = Publisher(port)
    common.say(f"listening {port}")
    for text in sys.stdin:
        publisher.obey(common.Command.parse(text))


if __name__ == "__main__":
    main()
