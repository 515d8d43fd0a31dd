"""Close codes: what the core's table says, for Python and as the page docs/close-codes.md.

The table itself is in rust/core/src/wire/close.rs.
"""

from __future__ import annotations

import sys
from typing import Final

from homewire import _core

_REASONS: Final = {code: reason for code, reason, _ in _core.close_codes()}

GOING_AWAY: Final = 1001
"""A node that stops closes its connections with this code."""
TRY_AGAIN: Final = 1013
"""The service is too busy to authorise a handshake."""
KEY_ENDED: Final = 4502
"""Closes the connections of a key that ended."""
FIRST_FINAL_CODE: Final = 4500
"""From this code on a client must not reconnect with the same key."""


def reason(code: int) -> str:
    """The reason of a code of the table. Raises KeyError for any other code."""
    return _REASONS[code]


def markdown() -> str:
    """The page docs/close-codes.md."""
    lines = [
        "# Close codes",
        "",
        "Made by `make docs` from `rust/core/src/wire/close.rs`.",
        "",
        "homewire closes a WebSocket connection with one of these codes. Below 4500: reconnect, after the",
        "delay in the table. From 4500 on: do not reconnect with this key. After a violation of RFC 6455 the",
        "frame names the rule instead of the reason below. A client that closes receives its own code.",
        "",
        "| code | reason | reconnect | what to do |",
        "| --- | --- | --- | --- |",
    ]
    for code, reason, advice in _core.close_codes():
        reconnects = "yes" if code < FIRST_FINAL_CODE else "no"
        lines.append(f"| {code} | {reason} | {reconnects} | {advice} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
