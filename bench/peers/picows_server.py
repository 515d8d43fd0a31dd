"""picows: its C-level transport, one `send` per client and event."""

from __future__ import annotations

import asyncio

import uvloop
from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.peers import common

CLIENTS: dict[WSTransport, None] = {}


class Listener(WSListener):
    """Keeps the transport while it lives."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        """A client is there."""
        CLIENTS[transport] = None

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """A client went."""
        CLIENTS.pop(transport, None)


def accept(_: WSUpgradeRequest) -> Listener:
    """A listener for every client, without any authentication."""
    return Listener()


async def send_all(text: str) -> None:
    """One frame to each client."""
    data = text.encode()
    for client in CLIENTS:
        client.send(WSMsgType.TEXT, data)


def backlog() -> int:
    """Bytes that wait for the furthest behind of the sampled clients."""
    clients = list(CLIENTS)[:: common.SAMPLE_STEP]
    return max((client.underlying_transport.get_write_buffer_size() for client in clients), default=0)


async def main() -> None:
    """Serve until standard input ends."""
    server: asyncio.Server = await ws_create_server(accept, "127.0.0.1", 0, backlog=4096)
    common.say(f"listening {server.sockets[0].getsockname()[1]}")
    await common.obey(send_all, backlog)


if __name__ == "__main__":
    uvloop.run(main())
