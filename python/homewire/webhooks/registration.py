"""Making a webhook: its URL is checked, and its key made, shown once and sealed.

A test event for one webhook: posted and signed as deliveries are, but known to nobody else.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Iterable
from typing import Final

import msgspec
from yarl import URL

from homewire.errors import InvalidInput
from homewire.repositories import Store
from homewire.sealing import Sealer
from homewire.settings import Settings
from homewire.timestamps import timestamp
from homewire.webhooks.client import WebhookClient, is_public
from homewire.webhooks.models import ModuleType, SmartModule

KEY_BYTES: Final = 32
MAX_URL: Final = 2048
RESOLVE_S: Final = 5.0
"""How long the host of a new webhook is looked up."""


async def create_webhook(
    store: Store,
    settings: Settings,
    project_id: int,
    module_id: str,
    url: str,
    description: str,
    events: Iterable[str],
    homes: Iterable[int] | None,
) -> str:
    """A new smart module that is told by POST; its key, which its receiver checks signatures with.

    It hears the events that are accepted after this returned. Raises UnknownRecord, Conflict, InvalidInput.
    """
    await _require_reachable(checked_url(url), settings)
    sealer, key = Sealer.of(settings), secrets.token_hex(KEY_BYTES)
    await store.smart_modules.create(
        project_id,
        module_id,
        ModuleType.WEBHOOK,
        description,
        events,
        homes,
        sealer.seal(checked_url(url)),
        sealer.seal(key),
        settings.shards,
    )
    return key


async def rotate_key(
    store: Store, settings: Settings, project_id: int, module_id: str, overlap_s: float
) -> str:
    """Another key for a module. The present one signs beside it for `overlap_s`. Raises UnknownRecord."""
    key = secrets.token_hex(KEY_BYTES)
    sealed = Sealer.of(settings).seal(key)
    await store.smart_modules.rotate_key(project_id, module_id, sealed, round(overlap_s * 1000))
    return key


async def _require_reachable(url: str, settings: Settings) -> None:
    """Raises InvalidInput for a host that is only on addresses to which nothing is delivered.

    A host that has no address yet passes: what counts is the address at each delivery.
    """
    if settings.webhook_private_addresses:
        return
    parts, loop = URL(url, encoded=True), asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(parts.host, parts.port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return
    if not any(is_public(str(info[4][0])) for info in found):
        raise InvalidInput(
            "url", "its host is on no public address; the setting webhook_private_addresses allows others"
        )


def checked_url(text: str) -> str:
    """An absolute http or https URL, exactly as it will be called and signed. Raises InvalidInput.

    Which address it is on is judged when it is called, not here.
    """
    if len(text) > MAX_URL or not text.isascii() or any(each.isspace() for each in text):
        raise InvalidInput("url", f"must be at most {MAX_URL} ASCII characters, without blanks")
    try:
        url = URL(text, encoded=True)
        port = url.port
    except ValueError:
        raise InvalidInput("url", "is no URL") from None
    if url.scheme not in ("http", "https") or not url.host or not port:
        raise InvalidInput("url", "must begin with https:// or http:// and name a host")
    if url.user is not None or url.password is not None or "#" in text:
        raise InvalidInput("url", "must have no user, password or fragment: the signature says who calls")
    return text


EVENT_TYPE: Final = "_webhookTest_"


async def post_test(settings: Settings, sealer: Sealer, module: SmartModule, now_ms: int) -> str | None:
    """None if the receiver took a test event, else why not. Raises ConfigurationError."""
    event = {"eventType": EVENT_TYPE, "eventData": {"moduleId": module.id}, "timestamp": timestamp(now_ms)}
    keys = [sealer.open(module.sealed_key)]
    if module.sealed_old_key and now_ms < module.old_key_until_ms:
        keys.insert(0, sealer.open(module.sealed_old_key))
    async with WebhookClient(settings) as poster:
        # No shard has this id: a receiver that drops repeats takes each test event.
        return await poster.post(
            sealer.open(module.sealed_url), keys, f"test.{now_ms}-0", msgspec.json.encode(event)
        )
