"""Timestamps as the MODE resources write them: RFC 3339, UTC, with `Z`."""

from __future__ import annotations

from datetime import UTC, datetime


def timestamp(ms: int) -> str:
    """With three fractional digits."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03}Z"


def whole_seconds(ms: int) -> str:
    """Without a fraction: one client reads `claimTime` and `claimExpirationTime` only so."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
