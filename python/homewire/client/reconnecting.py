"""How long a client waits before it connects again, and what a refusal said.

The delays are those of docs/close-codes.md: each is random (full jitter), so that the clients of a node that
stopped do not all come back in the same moment, and each failure in a row doubles the range.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

from homewire.errors import ClientError, explained

FIRST_FINAL_CODE: Final = 4500
"""From this close code on a client must not come back with the same key."""
TEMPORARY: Final = (429, 503)
"""Statuses that say: come back later. The answer's Retry-After says when."""
STEADY_S: Final = 30.0
"""A connection that lasted this long begins the series of delays anew."""
REASON_BYTES: Final = 64 * 1024
"""The longest refusal that is read."""


@dataclass(frozen=True, slots=True)
class Delay:
    """`floor_s` at least, and a random part of up to `spread_s`, which doubles up to `most_s`."""

    floor_s: float
    spread_s: float
    most_s: float = 60.0


UNREACHABLE: Final = Delay(0.0, 1.0, most_s=10.0)
"""No answer, or a connection that broke without a close frame."""
REFUSED: Final = Delay(0.0, 1.0)
"""Beyond what Retry-After says."""
_BROKE_THE_RULES: Final = Delay(10.0, 1.0)
_TOO_BUSY: Final = Delay(1.0, 1.0)
_AT_ONCE: Final = Delay(0.0, 0.0)
AFTER_CLOSE: Final[Mapping[int, Delay]] = {
    **dict.fromkeys((1001, 4002), Delay(0.0, 1.0)),
    **dict.fromkeys((1002, 1003, 1007, 1008, 1009), _BROKE_THE_RULES),
    **dict.fromkeys((1011, 1013, 4001), _TOO_BUSY),
    **dict.fromkeys((4003, 4004), _AT_ONCE),
}
"""By close code, as docs/close-codes.md has them; any other code is UNREACHABLE."""


class Backoff:
    """The delays of one listener. `uniform` is the source of randomness."""

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._failures = 0

    def next_s(self, delay: Delay) -> float:
        """How long to wait now, in seconds; the next one doubles, unless `steady` comes before it."""
        # The second time in a row nothing is "at once": two ends that disagree would do nothing else.
        spread_s = delay.spread_s or (1.0 if self._failures else 0.0)
        ceiling = min(spread_s * 2.0**self._failures, delay.most_s)
        self._failures = min(self._failures + 1, 16)
        return delay.floor_s + self._uniform(0.0, ceiling)

    def steady(self) -> None:
        """The connection held: the next failure is a first one."""
        self._failures = 0


class Refused(ClientError):
    """The server answered with an error `status`; the message has its reason."""

    def __init__(self, status: int, reason: str, retry_after_s: float) -> None:
        self.status = status
        self.retry_after_s = retry_after_s
        super().__init__(f"the server refused: {status} {reason}")

    @property
    def is_temporary(self) -> bool:
        """Whether the same request may be taken later."""
        return self.status in TEMPORARY


async def raise_refusals(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A middleware of aiohttp's client: an error status becomes Refused. (aiohttp drops the body of a refused
    handshake, and the reason is in it.)"""
    response = await handler(request)
    if response.status < 400:
        return response
    try:
        body = await response.content.read(REASON_BYTES)
    finally:
        response.close()
    raise Refused(response.status, _reason(body), _seconds(response.headers.get("Retry-After", "")))


def _reason(body: bytes) -> str:
    """Reason and details of a refusal of homewire's; nothing of what a proxy wrote there."""
    try:
        told: Any = json.loads(body)
        reason, data = str(told["reason"]), dict(told.get("data") or {})
    except (ValueError, KeyError, TypeError, AttributeError):
        return "(no reason given)"
    text = explained(reason, data)
    return text if text.startswith(reason) else f"{reason}, {text}"


def _seconds(retry_after: str) -> float:
    """Seconds of a Retry-After, which may be a date (RFC 9110, 10.2.3); 0 without one."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0
