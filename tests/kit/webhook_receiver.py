"""A webhook's receiver: a real HTTP server that records its requests."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from homewire.sealing import Sealer
from homewire.settings import Settings
from homewire.webhooks.models import ModuleType
from homewire.webhooks.registration import create_webhook, post_test, rotate_key
from kit.node import NodeProcess
from kit.tenant import Tenant

TIMEOUT_S = 10.0

Answer = Callable[["Received"], Awaitable[web.StreamResponse | int]]


@dataclass(frozen=True)
class Received:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> Any:
        return orjson.loads(self.body)

    @property
    def event_id(self) -> str:
        return self.headers["X-Mode-Event-Id"]

    @property
    def number(self) -> int:
        """What a test put into the event to know it by."""
        return int(self.event["eventData"]["n"])

    def is_signed(self, key: str, url: str) -> bool:
        """Whether the signature is the one that the data models describe, computed here."""
        expected = hmac.digest(key.encode(), url.encode() + self.body, hashlib.sha256).hex()
        return self.headers["X-Mode-Signature"] == expected


async def take(_: Received) -> int:
    """The answer of a receiver that works."""
    return 200


@dataclass
class Receiver:
    """`answer` says what the next requests get; `all` is every request there ever was."""

    origin: str
    answer: Answer = take
    all: list[Received] = field(default_factory=list)
    _queue: asyncio.Queue[Received] = field(default_factory=asyncio.Queue)

    @property
    def url(self) -> str:
        return self.origin + "/hook?a=b%20c&d=%C3%A9"

    async def next(self, within: float = TIMEOUT_S) -> Received:
        """The next request that was not returned yet."""
        async with asyncio.timeout(within):
            return await self._queue.get()

    async def numbers(self, count: int) -> list[int]:
        """What the next requests are about."""
        return [(await self.next()).number for _ in range(count)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        received = Received(request.method, request.path_qs, dict(request.headers), body)
        self.all.append(received)
        self._queue.put_nowait(received)
        answer = await self.answer(received)
        return web.Response(status=answer) if isinstance(answer, int) else answer


@asynccontextmanager
async def receiving(host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """A receiver on a loopback address."""
    app = web.Application()
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    receiver = Receiver("")
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    port = runner.addresses[0][1]
    receiver.origin = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def register(
    tenant: Tenant,
    node: NodeProcess,
    url: str,
    *events: str,
    module: str = "hook",
    homes: list[int] | None = None,
    secret: str | None = None,
) -> str:
    """A webhook of the tenant's project, as the CLI makes it; its key."""
    return await create_webhook(
        tenant.store,
        Settings(data_dir=node.data_dir, secret_key=secret, webhook_private_addresses=True),
        tenant.project,
        module,
        url,
        "a test",
        events or ("*",),
        homes,
    )


async def add_module(tenant: Tenant, module: str) -> None:
    """A webhook whose URL and key no node can read."""
    await tenant.store.smart_modules.create(
        tenant.project, module, ModuleType.WEBHOOK, "", ["*"], None, "sealed", "sealed", 1
    )


async def rotated_key(tenant: Tenant, node: NodeProcess, overlap_s: float) -> str:
    """The new key of the webhook `hook`. The one before signs beside it for so long."""
    settings = Settings(data_dir=node.data_dir)
    return await rotate_key(tenant.store, settings, tenant.project, "hook", overlap_s)


async def error_of_test_event(tenant: Tenant, node: NodeProcess) -> str | None:
    """What went wrong with a test event for the webhook `hook`; None: it was taken."""
    settings = Settings(data_dir=node.data_dir, webhook_private_addresses=True)
    module = await tenant.store.smart_modules.get(tenant.project, "hook")
    assert module is not None
    return await post_test(settings, Sealer.of(settings), module, 0)


async def send(tenant: Tenant, home: int, *numbers: int, event_type: str = "e") -> None:
    """Events of a home that are known by their numbers."""
    await tenant.send(
        *({"homeId": home, "eventType": event_type, "eventData": {"n": number}} for number in numbers)
    )
