"""Times: ms since 1970 inside, RFC 3339 in UTC with `Z` in the MODE resources."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def milliseconds(seconds: float) -> int:
    """A duration of a setting, in s, as ms: at least 1."""
    return max(1, round(seconds * 1000))


def timestamp(ms: int) -> str:
    """With three fractional digits."""
    return f"{_to_the_second(ms // 1000)}.{ms % 1000:03}Z"


def whole_seconds(ms: int) -> str:
    """Without a fraction: one client reads `claimTime` and `claimExpirationTime` only so."""
    return f"{_to_the_second(ms // 1000)}Z"


# Clients ask for the same records again and again, and many of them are of the same second.
@lru_cache(maxsize=10_000)
def _to_the_second(at: int) -> str:
    """`at` in seconds."""
    # What is cut off is the zone; `strftime` would take ten times as long.
    return datetime.fromtimestamp(at, UTC).isoformat()[:19]
