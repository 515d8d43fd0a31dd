"""websockets: its own `broadcast()`, which frames a message once for all clients."""

from __future__ import annotations

import logging

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers import common

CLIENTS: dict[ServerConnection, None] = {}


async def handler(connection: ServerConnection) -> None:
    """Keep the connection while it lives, without any authentication."""
    CLIENTS[connection] = None
    try:
        await connection.wait_closed()
    finally:
        del CLIENTS[connection]


async def send_all(text: str) -> None:
    """One frame to each client."""
    broadcast(CLIENTS, text)


def backlog() -> int:
    """Bytes that wait for the furthest behind of the sampled clients."""
    clients = list(CLIENTS)[:: common.SAMPLE_STEP]
    return max((client.transport.get_write_buffer_size() for client in clients), default=0)


async def main() -> None:
    """Serve until standard input ends."""
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    async with serve(
        handler, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096, close_timeout=0.1
    ) as server:
        common.say(f"listening {next(iter(server.sockets)).getsockname()[1]}")
        await common.obey(send_all, backlog)


if __name__ == "__main__":
    uvloop.run(main())
