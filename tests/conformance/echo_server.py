"""A real node whose core sends every client message back, for conformance suites to drive.

By hand: ``python tests/conformance/echo_server.py``, then ``kosoku '<the URL it prints>' -i '1.*'``.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from homewire.access_changes.relay import Relay
from homewire.app import Tier, running
from homewire.projects.models import AccountSystem
from homewire.realtime.core_events import ClientMessages
from homewire.redis.connect import connect
from homewire.redis.embedded import EmbeddedServer
from homewire.repositories import Store
from homewire.sessions.models import ClientInfo
from homewire.settings import Settings

LARGEST_MESSAGE = 32 * 1024 * 1024
"""Bytes; the suite's largest message has 16 MiB."""
QUEUED_ECHOES = 4 * LARGEST_MESSAGE
"""Bytes; an echo may be queued while the suite still writes the next message."""


@asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    """Starts a node of both roles on a free port; the WebSocket URL of its echo, key included."""
    with tempfile.TemporaryDirectory(prefix="hw-") as directory:
        async with EmbeddedServer(Path(directory) / "data", "everysec") as redis:
            settings = Settings(
                port=0,
                redis_url=redis.url,
                data_dir=Path(directory) / "data",
                client_message_bytes=LARGEST_MESSAGE,
                send_queue_bytes=QUEUED_ECHOES,
                # Group 9 sends as much as it can, in pieces as small as it can.
                inbound_frames_per_s=0,
                inbound_bytes_per_s=0,
                # A ping of ours in the middle of a case would be none that it expects.
                heartbeat_s=3_600.0,
                log_level="warning",
            )
            key = await _user_key(redis.url)
            async with _echoing(settings) as base_url:
                yield f"{base_url.replace('http', 'ws', 1)}/userSession/websocket?authToken={key}"


@asynccontextmanager
async def _echoing(settings: Settings) -> AsyncIterator[str]:
    def echo(connection: int, opcode: int, payload: bytes) -> None:
        assert node.core is not None
        node.core.send(connection, opcode, payload)

    async with running(
        settings, frozenset({Tier.ROUTER, Tier.API}), client_messages=ClientMessages(echo)
    ) as node:
        yield node.base_url


async def _user_key(redis_url: str) -> str:
    """A key of a new user, who may open `/userSession/websocket` without a filter."""
    redis = connect(redis_url)
    try:
        store = Store(redis, Relay(redis, 64))
        project = await store.projects.create("conformance", AccountSystem.EMAIL)
        user = await store.users.create(project.id, "suite", email="suite@example.com", password="a long one")
        _, key = await store.sessions.open(
            project.id, user.id, "suite", ClientInfo("127.0.0.1", user_agent="kosoku")
        )
        return key
    finally:
        await redis.aclose()


async def _main() -> None:
    async with echo_server() as url:
        print(url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
