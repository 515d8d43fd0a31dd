"""A test event for one webhook: posted and signed as deliveries are, but known to nobody else."""

from __future__ import annotations

from typing import Final

import msgspec

from homewire.api.times import timestamp
from homewire.model import SmartModule
from homewire.sealing import Sealer
from homewire.settings import Settings
from homewire.webhooks.posting import Poster

EVENT_TYPE: Final = "_webhookTest_"


async def post_test(settings: Settings, sealer: Sealer, module: SmartModule, now_ms: int) -> str | None:
    """None if the receiver took a test event, else why not. Raises ConfigurationError."""
    event = {"eventType": EVENT_TYPE, "eventData": {"moduleId": module.id}, "timestamp": timestamp(now_ms)}
    keys = [sealer.open(module.sealed_key)]
    if module.sealed_old_key and now_ms < module.old_key_until_ms:
        keys.insert(0, sealer.open(module.sealed_old_key))
    async with Poster(settings) as poster:
        # No shard has this id: a receiver that drops repeats takes each test event.
        return await poster.post(
            sealer.open(module.sealed_url), keys, f"test.{now_ms}-0", msgspec.json.encode(event)
        )
