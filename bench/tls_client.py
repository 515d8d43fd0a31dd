"""A load client with and without TLS: holds WebSockets, sends events, counts what arrives.

``python -m bench.tls_client PORT FILE [--tls]``: the first line of FILE is ``PATH AUTHORIZATION`` to PUT
events to, the others are of the listeners. Says ``ready``; for each line ``EVENTS RATE`` on standard input it
sends so many, waits until every listener has them, and prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time
from pathlib import Path

import uvloop

NONCE = "dGhlIHNhbXBsZSBub25jZQ=="
PAD = "x" * 64
CONNECTING = 16
TIMEOUT_S = 20.0
EXTRA_S = 0.1
"""How long to wait at the end for surplus messages."""


class Listener(asyncio.Protocol):
    """Counts the data messages of one WebSocket, and answers pings."""

    def __init__(self, request: str) -> None:
        self._request = request
        self._unread = b""
        self._transport: asyncio.WriteTransport | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.messages = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are of no such class
        path, _, authorization = self._request.partition(" ")
        transport.write(  # type: ignore[attr-defined]
            f"GET {path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {NONCE}\r\n"
            f"Authorization: {authorization}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """The answer first, then frames."""
        data = self._unread + data
        if not self.opened.done():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._unread = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.opened.set_exception(ConnectionError(head.split(b"\r\n")[0].decode()))
                return
            self.opened.set_result(None)
        self._unread = self._count(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Raise the error of a connection that did not open."""
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionResetError())

    def _count(self, data: bytes) -> bytes:
        """Frames of a server have no mask, and these are shorter than 64 KiB. What is left over."""
        at = 0
        while len(data) - at >= 2:
            size, payload = data[at + 1], at + 2
            if size == 126:
                size, payload = int.from_bytes(data[at + 2 : at + 4]), at + 4
            if len(data) < payload + size:
                break
            if data[at] & 0x0F == 9 and self._transport is not None:
                self._transport.write(b"\x8a%c\0\0\0\0" % (0x80 | size) + data[payload : payload + size])
            elif data[at] & 0x08 == 0:
                self.messages += 1
            at = payload + size
        return data[at:]


async def listeners(port: int, requests: list[str], tls: ssl.SSLContext | None) -> list[Listener]:
    """All of them, open."""
    gate = asyncio.Semaphore(CONNECTING)

    async def one(request: str) -> Listener:
        async with gate:
            loop = asyncio.get_running_loop()
            _, listener = await loop.create_connection(lambda: Listener(request), "127.0.0.1", port, ssl=tls)
            await asyncio.wait_for(listener.opened, TIMEOUT_S)
            return listener

    return list(await asyncio.gather(*map(one, requests)))


async def publish(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str, events: int, rate: float
) -> None:
    """PUT events one by one, each at its time. Raises ConnectionError unless every answer is 204."""
    path, _, authorization = target.partition(" ")
    body = json.dumps({"eventType": "bench", "eventData": {"pad": PAD}})
    request = (
        f"PUT {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: {authorization}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    started = time.monotonic()
    for number in range(events):
        await asyncio.sleep(started + number / rate - time.monotonic())
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 204 " not in answer.split(b"\r\n")[0]:
            raise ConnectionError(answer.decode())


async def all_received(listening: list[Listener], expected: int) -> bool:
    """Whether each has received `expected`, no more and no less, within TIMEOUT_S."""
    until = time.monotonic() + TIMEOUT_S
    while min(listener.messages for listener in listening) < expected and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.sleep(EXTRA_S)
    return all(listener.messages == expected for listener in listening)


async def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--tls", action="store_true")
    chosen = parser.parse_args()
    target, *requests = chosen.file.read_text().split("\n")[:-1]
    tls = ssl.create_default_context() if chosen.tls else None
    if tls is not None:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    listening = await listeners(chosen.port, requests, tls)
    reader, writer = await asyncio.open_connection("127.0.0.1", chosen.port, ssl=tls)
    print("ready", flush=True)
    expected = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        events, rate = int(line.split()[0]), float(line.split()[1])
        before = time.process_time()
        await publish(reader, writer, target, events, rate)
        expected += events
        complete = await all_received(listening, expected)
        spent = time.process_time() - before
        received = [listener.messages for listener in listening]
        result = {"complete": complete, "cpu_s": spent, "least": min(received), "most": max(received)}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
