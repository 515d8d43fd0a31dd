"""Logging: structured lines on stderr, for homewire and its libraries."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import orjson
import structlog

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.settings.fields import LogFormat, LogLevel


def configure(level: LogLevel, log_format: LogFormat) -> None:
    """Configure structlog and the standard library's logging. To be called once, at the start."""
    numeric = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=_wants_colours())
        if log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
        else structlog.processors.JSONRenderer(serializer=_to_json)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared[:2],
            *shared[3:],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(numeric)


class Seldom:
    """Limits log lines to one in `interval_s` seconds for each kind of problem."""

    __slots__ = ("_interval_s", "_logged_at", "_monotonic")

    def __init__(self, interval_s: float, clock: Clock = MACHINE_CLOCK) -> None:
        self._monotonic = clock.monotonic
        self._interval_s = interval_s
        self._logged_at: dict[str, float] = {}

    def may(self, event: str) -> bool:
        """Whether a line about `event` may be written. If so, it counts as written."""
        now = self._monotonic()
        if now - self._logged_at.get(event, float("-inf")) < self._interval_s:
            return False
        self._logged_at[event] = now
        return True


def _wants_colours() -> bool:
    """Whether stderr is a terminal that shows colours, and NO_COLOR is not set (no-color.org)."""
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _to_json(value: Any, **_ignored: Any) -> str:
    return orjson.dumps(value, default=str).decode()
