"""Skipped records are said, each once."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from homewire.realtime.core_events import SKIP_COUNTERS, report_skipped


class Counts:
    """Counters of which the second look finds two malformed records and one foreign entry, the third none."""

    def __init__(self) -> None:
        self.looks = 0
        self.seen = asyncio.Event()

    def stats(self) -> dict[str, int]:
        self.looks += 1
        if self.looks == 4:
            self.seen.set()
        grown = {"malformed": 2, "foreign_entries": 1} if self.looks > 1 else {}
        return dict.fromkeys(SKIP_COUNTERS, 0) | grown | {"deliveries": self.looks}


async def test_skipped_entries_are_logged_once() -> None:
    counts = Counts()
    with capture_logs() as logs:
        task = asyncio.create_task(report_skipped(counts, interval_s=0.001))
        async with asyncio.timeout(10):
            await counts.seen.wait()
        task.cancel()
    assert logs == [
        {"event": "bus.records_skipped", "log_level": "warning", "foreign_entries": 1, "malformed": 2}
    ]
