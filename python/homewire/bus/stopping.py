"""Noticing a cancellation that redis-py did not let through."""

from __future__ import annotations

import asyncio


def asked_to_stop() -> bool:
    """Whether this task was cancelled, also if it did not notice: redis-py sends by `asyncio.wait_for`,
    and that, in Python 3.11, swallows a cancellation which arrives as the send completes. It was half
    of them when measured. A time-out (`asyncio.timeout`) is such a cancellation too, and as easily lost."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
