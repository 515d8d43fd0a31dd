"""Timestamps as the MODE resources write them: RFC 3339, UTC, with `Z`."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(ms: int) -> str:
    """With three fractional digits."""
    return f"{_seconds(ms)}.{ms % 1000:03}Z"


def whole_seconds(ms: int) -> str:
    """Without a fraction: one client reads `claimTime` and `claimExpirationTime` only so."""
    return f"{_seconds(ms)}Z"


def _seconds(ms: int) -> str:
    # What follows is the zone; `strftime` would take ten times as long.
    return datetime.fromtimestamp(ms // 1000, UTC).isoformat()[:19]
