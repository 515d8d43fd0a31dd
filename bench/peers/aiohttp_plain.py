"""Plain aiohttp: `WebSocketResponse`, one `send_str` per client and event; a handler that only says 204."""

from __future__ import annotations

import asyncio
from typing import cast

import uvloop
from aiohttp import web

from bench.peers import common

DEVICE = (
    b'{"id":123456,"projectId":1,"creationTime":"2026-11-21T17:33:44.648Z","name":"","tag":"",'
    b'"deviceClass":"sensor","isConnected":false,"homeId":123455}'
)
CLIENTS: dict[web.WebSocketResponse, asyncio.WriteTransport] = {}


async def websocket(request: web.Request) -> web.WebSocketResponse:
    """Upgrade without any authentication, then wait until the client goes."""
    # Without compression: by default each connection would carry a zlib compressor.
    response = web.WebSocketResponse(compress=False)
    await response.prepare(request)
    # uvloop's transports do what asyncio's do, and inherit nothing from them.
    CLIENTS[response] = cast(asyncio.WriteTransport, request.transport)
    try:
        async for _ in response:
            pass
    finally:
        del CLIENTS[response]
    return response


async def no_content(_: web.Request) -> web.Response:
    """Say 204: the least that an aiohttp handler can do."""
    return web.Response(status=204)


async def device(_: web.Request) -> web.Response:
    """Say what was said before: the least that a handler can do whose answer is as large as a device's."""
    return web.Response(body=DEVICE, content_type="application/json")


async def send_all(text: str) -> None:
    """One frame to each client; `send_str` itself waits for a client whose buffer is full."""
    for client in list(CLIENTS):
        await client.send_str(text)


def backlog() -> int:
    """Bytes that wait for the furthest behind of the sampled clients."""
    transports = list(CLIENTS.values())[:: common.SAMPLE_STEP]
    return max((transport.get_write_buffer_size() for transport in transports), default=0)


async def main() -> None:
    """Serve until standard input ends."""
    app = web.Application()
    app.router.add_get("/userSession/websocket", websocket)
    app.router.add_get("/devices/{deviceId}", device)
    app.router.add_put("/homes/{homeId}/kv/{key}", no_content)
    app.router.add_put("/devices/{deviceId}/event", no_content)
    app.router.add_put("/homes/{homeId}/event", no_content)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    common.say(f"listening {runner.addresses[0][1]}")
    await common.obey(send_all, backlog)


if __name__ == "__main__":
    uvloop.run(main())
