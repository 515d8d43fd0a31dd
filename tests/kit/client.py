"""A client that controls every byte: raw HTTP requests, and WebSockets as the wire has them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from kit import certificates

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
TIMEOUT_S = 20.0
"""Timeout of everything that must happen. A busy machine may need seconds instead of milliseconds."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Frame:
    """One frame as the server sent it."""

    opcode: int
    payload: bytes
    final: bool = True

    @property
    def close_code(self) -> int:
        assert self.opcode == CLOSE, self
        return int(struct.unpack("!H", self.payload[:2])[0])


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, mask: bool = True, rsv: int = 0) -> bytes:
    """The bytes of a client's frame; the arguments make wrong ones too."""
    first = (0x80 if final else 0) | rsv << 4 | opcode
    masked = 0x80 if mask else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, masked | len(payload))
    elif len(payload) < 1 << 16:
        head = struct.pack("!BBH", first, masked | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, masked | 127, len(payload))
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def close_frame(code: int, reason: str = "") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason.encode())


class RawConnection:
    """One TCP connection to a node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, url: str, *, receive_buffer: int | None = None, source: str | None = None) -> Self:
        """`receive_buffer` is SO_RCVBUF in bytes; asyncio itself then reads ahead at most 2 KiB. `source` is
        the client's address.

        To an https URL with TLS; then asyncio may read ahead half a MB more.
        """
        parts = urlsplit(url)
        connection = socket.socket()
        connection.setblocking(False)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source is not None:
            connection.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(connection, (parts.hostname, parts.port))
        # A segment for each write: tests say what arrives together.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        limit = 1 << 16 if receive_buffer is None else 1 << 10
        tls: dict[str, Any] = {}
        if parts.scheme == "https":
            tls = {"ssl": certificates.client_context(), "server_hostname": parts.hostname}
        return cls(*await asyncio.open_connection(sock=connection, limit=limit, **tls))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drop()

    async def drop(self) -> None:
        """Close without a close frame."""
        self.writer.transport.abort()
        await self._wait_closed()

    async def say_no_more(self) -> None:
        """Close the sending half; with TLS, where asyncio can't, the socket's own."""
        if self.writer.can_write_eof():
            self.writer.write_eof()
        else:
            await self.writer.drain()
            self.writer.get_extra_info("socket").shutdown(socket.SHUT_WR)

    async def reset(self) -> None:
        """Close with a TCP reset."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.drop()

    async def _wait_closed(self) -> None:
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return  # The server was first.

    async def at_end(self, within: float = TIMEOUT_S) -> bool:
        """Whether the server closed its side, and sent nothing before."""
        async with asyncio.timeout(within):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    async def read_answer(self) -> Answer:
        """The next HTTP answer."""
        async with asyncio.timeout(TIMEOUT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {}
            for line in head[1:-2]:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(head[0].split()[1]), headers, body)


async def raw_request(url: str, request: bytes) -> Answer:
    """Exactly these bytes, on a connection of their own."""
    async with await RawConnection.open(url) as connection:
        connection.writer.write(request)
        return await connection.read_answer()


def upgrade_request(path: str, key: str | None, **headers: str) -> tuple[bytes, str]:
    """An upgrade request, and the Sec-WebSocket-Key in it. `key` goes into Authorization."""
    nonce = base64.b64encode(os.urandom(16)).decode()
    wanted = {
        "Host": "homewire",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": nonce,
    }
    if key is not None:
        wanted["Authorization"] = key
    wanted |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in wanted.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape"), nonce


class Refused(Exception):
    """The upgrade was answered with something else than 101."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(f"{answer.status} {answer.body!r}")


PRESENCE = (b'{"eventType":"_deviceConnected_"', b'{"eventType":"_deviceDisconnected_"')


class Socket(RawConnection):
    """A WebSocket, from its handshake on."""

    receives_presence = False
    """Whether `receive` gives what the platform says of devices that come and go. It comes when it comes, and
    most tests are about something else."""

    async def upgrade(self, path: str, key: str | None, early: bytes = b"", **headers: str) -> None:
        """The handshake; `early` goes out in the same write. Raises Refused."""
        await self.ask(path, key, early, **headers)
        await self.accepted()

    async def ask(self, path: str, key: str | None, early: bytes = b"", **headers: str) -> None:
        """Send the upgrade request, and do not wait for the answer."""
        request, self._nonce = upgrade_request(path, key, **headers)
        self.writer.write(request + early)
        await self.writer.drain()

    async def accepted(self) -> None:
        """Read the 101. Raises Refused."""
        answer = await self.read_answer()
        if answer.status != 101:
            raise Refused(answer)
        expected = base64.b64encode(hashlib.sha1(self._nonce.encode() + GUID).digest()).decode()
        assert answer.headers["sec-websocket-accept"] == expected

    async def send(self, opcode: int, payload: bytes = b"") -> None:
        """Send one valid frame."""
        await self.send_bytes(frame(opcode, payload))

    async def send_bytes(self, wire: bytes) -> None:
        self.writer.write(wire)
        await self.writer.drain()

    async def receive(self, within: float = TIMEOUT_S) -> Frame:
        """The next frame. Pings, which may come at any moment, are answered on the way."""
        while True:
            received = await self.receive_any(within)
            if received.opcode == PING:
                await self.send(PONG, received.payload)
            elif self.receives_presence or not received.payload.startswith(PRESENCE):
                return received

    async def receive_any(self, within: float = TIMEOUT_S) -> Frame:
        """The next frame, whatever it is, and nothing is answered."""
        async with asyncio.timeout(within):
            first, second = await self.reader.readexactly(2)
            assert second < 128, "a server's frame is masked"
            assert first & 0x70 == 0, "a reserved bit is set"
            size = second
            if second == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif second == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            payload = await self.reader.readexactly(size)
        return Frame(first & 0x0F, payload, bool(first & 0x80))

    async def receive_text(self, within: float = TIMEOUT_S) -> str:
        """The next data message."""
        received = await self.receive(within)
        assert received.opcode == TEXT, received
        assert received.final
        return received.payload.decode()

    async def receive_json(self, within: float = TIMEOUT_S) -> Any:
        """The next data message, parsed."""
        return json.loads(await self.receive_text(within))

    async def receive_type(self, within: float = TIMEOUT_S) -> str:
        """The next event's type."""
        return str((await self.receive_json(within))["eventType"])

    async def is_alive(self) -> bool:
        """Whether a ping is answered, and no message comes before its answer."""
        payload = os.urandom(8)
        await self.send(PING, payload)
        return await self.receive() == Frame(PONG, payload)


async def listen(url: str, path: str, key: str | None, **options: Any) -> Socket:
    """A WebSocket on `path`. Raises Refused."""
    connection = await Socket.open(url, receive_buffer=options.pop("receive_buffer", None))
    connection.receives_presence = options.pop("receives_presence", False)
    try:
        await connection.upgrade(path, key, **options)
    except BaseException:
        await connection.drop()
        raise
    return connection


async def listen_if_allowed(url: str, path: str, key: str | None) -> Socket | None:
    """A WebSocket on `path`; None if that was refused."""
    try:
        return await listen(url, path, key)
    except Refused:
        return None


async def refusal(url: str, path: str, key: str | None, **headers: str) -> Answer:
    """The answer to an upgrade that must be refused."""
    try:
        connection = await listen(url, path, key, **headers)
    except Refused as refused:
        return refused.answer
    await connection.drop()
    raise AssertionError(f"{path} was accepted")
