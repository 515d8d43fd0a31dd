"""Statuses of the document that the access table does not reach: where they are, or why nothing does."""

from __future__ import annotations

from typing import Final

_RATES: Final = "test_bus_ingest.py (the limits on events per second)"
_HOLDERS: Final = "test_limits_nodes.py (the limits on connections)"

ELSEWHERE: Final[dict[tuple[str, int], str]] = {
    ("sendHomeEvent", 429): _RATES,
    ("sendDeviceEvent", 429): _RATES,
    ("sendEvents", 429): _RATES,
    ("sendCommand", 429): _RATES,
    ("listenToEvents", 429): _HOLDERS,
    ("receiveCommands", 429): _HOLDERS,
}
"""For an operation and status, the test that reaches it."""

IMPOSSIBLE: Final[dict[tuple[str, int], str]] = {
    (
        "listenToEvents",
        404,
    ): "no id in the path; a filter's id that cannot be seen is 403",
    ("receiveCommands", 404): "any device but the caller itself is refused before it is looked for: 403",
}
"""Why a status of the spec's table is never answered."""
