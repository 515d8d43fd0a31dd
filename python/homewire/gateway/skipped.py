"""What the core read and could not use: counted by it, and said here once a minute.

One bad record, whoever wrote it, must not stop a node; nor may it go unnoticed, or fill the log.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import structlog

INTERVAL_S: Final = 60.0
SKIPPED: Final = ("foreign_entries", "malformed", "control_records_unknown")
"""Counters of the core (`metrics.COUNTERS`)."""

_log = structlog.get_logger(__name__)


class Counts(Protocol):
    """What has the core's counters."""

    def stats(self) -> dict[str, int]:
        """Counters by name."""
        ...


async def report_skipped(core: Counts, interval_s: float = INTERVAL_S) -> None:
    """Log how many records were skipped since the last time, if any, every `interval_s` seconds."""
    before = dict.fromkeys(SKIPPED, 0)
    while True:
        stats = core.stats()
        now = {name: stats[name] for name in SKIPPED}
        grown = {name: now[name] - before[name] for name in SKIPPED if now[name] > before[name]}
        if grown:
            _log.warning("bus.records_skipped", **grown)
        before = now
        await asyncio.sleep(interval_s)
