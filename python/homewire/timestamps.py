"""Times: ms since 1970 in the code, RFC 3339 in UTC with `Z` in the REST service."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def milliseconds(seconds: float) -> int:
    """The duration of a setting as whole ms, at least 1."""
    return max(1, round(seconds * 1000))


def timestamp(ms: int) -> str:
    """RFC 3339 with three fractional digits."""
    return f"{_to_the_second(ms // 1000)}.{ms % 1000:03}Z"


def whole_seconds(ms: int) -> str:
    """RFC 3339 without a fraction. One client reads `claimTime` and `claimExpirationTime` only in this
    form."""
    return f"{_to_the_second(ms // 1000)}Z"


# Clients read the same records repeatedly, and many of them are of the same second.
@lru_cache(maxsize=10_000)
def _to_the_second(at: int) -> str:
    """`at` is in seconds since 1970."""
    # The cut part is the time zone. `strftime` would take ten times as long.
    return datetime.fromtimestamp(at, UTC).isoformat()[:19]
