"""Creation, key rotation and test of webhooks.

The URL is checked, and the key is generated, shown once and sealed. A test event is posted and signed like a
delivery, but it is neither stored nor counted.
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
"""Maximum time to resolve the host of a new webhook."""


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
    """Create a smart module. Returns the key with which its receiver verifies signatures.

    The module gets the events that are accepted after this returned. Raises UnknownRecord, Conflict,
    InvalidInput.
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
    """Replace the key of a module. For `overlap_s` both keys sign. Raises UnknownRecord."""
    key = secrets.token_hex(KEY_BYTES)
    sealed = Sealer.of(settings).seal(key)
    await store.smart_modules.rotate_key(project_id, module_id, sealed, round(overlap_s * 1000))
    return key


async def _require_reachable(url: str, settings: Settings) -> None:
    """Check that the host has an address to which homewire delivers. Raises InvalidInput.

    A host without an address passes, because each delivery checks the address again.
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
            "url", "its host has no public address; the setting webhook_private_addresses allows others"
        )


def checked_url(text: str) -> str:
    """Check an absolute http or https URL, and return it unchanged. Raises InvalidInput.

    The address of its host is not checked here.
    """
    if len(text) > MAX_URL or not text.isascii() or any(each.isspace() for each in text):
        raise InvalidInput("url", f"must be at most {MAX_URL} ASCII characters without spaces")
    try:
        url = URL(text, encoded=True)
        port = url.port
    except ValueError:
        raise InvalidInput("url", "is not a URL") from None
    if url.scheme not in ("http", "https") or not url.host or not port:
        raise InvalidInput("url", "must begin with https:// or http:// and name a host")
    if url.user is not None or url.password is not None or "#" in text:
        raise InvalidInput(
            "url", "must have no user, password or fragment; the signature authenticates homewire"
        )
    return text


EVENT_TYPE: Final = "_webhookTest_"


async def post_test(settings: Settings, sealer: Sealer, module: SmartModule, now_ms: int) -> str | None:
    """Post a test event. Returns None if the receiver accepted it, else the problem.

    Raises ConfigurationError.
    """
    event = {"eventType": EVENT_TYPE, "eventData": {"moduleId": module.id}, "timestamp": timestamp(now_ms)}
    keys = [sealer.open(module.sealed_key)]
    if module.sealed_old_key and now_ms < module.old_key_until_ms:
        keys.insert(0, sealer.open(module.sealed_old_key))
    async with WebhookClient(settings) as client:
        # The id is unique, so that a receiver that drops repetitions accepts each test event.
        return await client.post(
            sealer.open(module.sealed_url), keys, f"test.{now_ms}-0", msgspec.json.encode(event)
        )
