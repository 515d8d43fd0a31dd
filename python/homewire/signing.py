"""Signatures of what homewire posts: to webhooks, and to the gateway for SMS.

A receiver that has the key sees who posts and that nothing was changed. The time is signed, too, so that it
can refuse what was recorded and is posted again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

HEADER: Final = "X-Homewire-Signature"


def hmac_hex(key: str, *parts: str | bytes) -> str:
    """Hex HMAC-SHA256 of all parts, one behind the other."""
    digest = hmac.new(key.encode(), digestmod=hashlib.sha256)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def webhook_signature(keys: Iterable[str], time_s: int, event_id: str, url: str, body: bytes) -> str:
    """`t=<unix seconds>,v1=<hex>`, with a v1 for each key: two while a key is being replaced.

    Signed is `<t>.<event id>.<url>.<body>`. The receiver takes time and id from the headers; the URL is its
    own, exactly as it was registered.
    """
    signatures = (f"v1={hmac_hex(key, f'{time_s}.{event_id}.{url}.', body)}" for key in keys)
    return ",".join((f"t={time_s}", *signatures))
