"""Close codes: what the core's table says, for Python and as the page docs/close-codes.md.

The table itself is in rust/core/src/wire/close.rs.
"""

from __future__ import annotations

import sys
from typing import Final

from homewire import _core

_REASONS: Final = {code: reason for code, reason, _ in _core.close_codes()}

GOING_AWAY: Final = 1001
"""With this code a node that stops closes its connections."""
TRY_AGAIN: Final = 1013
"""What a client is told when the service cannot say at the moment."""
KEY_ENDED: Final = 4502
"""With this code whoever is connected with a key that ended is closed."""
FIRST_FINAL_CODE: Final = 4500
"""From this code on a client must not come back with the same key."""


def reason(code: int) -> str:
    """The words that go with a code of the table. Raises KeyError for any other."""
    return _REASONS[code]


def markdown() -> str:
    """The page docs/close-codes.md."""
    lines = [
        "# Close codes",
        "",
        "Made by `make docs` from `rust/core/src/wire/close.rs`.",
        "",
        "With one of these codes homewire ends a WebSocket connection. Below 4500: come back, after the",
        "delay that the table gives. From 4500 on: don't, with this key. Where a client broke RFC 6455 the",
        "frame names the rule instead of the reason here. A client that closes gets its own code back.",
        "",
        "| code | reason | come back | what to do |",
        "| --- | --- | --- | --- |",
    ]
    for code, reason, advice in _core.close_codes():
        comes_back = "yes" if code < FIRST_FINAL_CODE else "no"
        lines.append(f"| {code} | {reason} | {comes_back} | {advice} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
