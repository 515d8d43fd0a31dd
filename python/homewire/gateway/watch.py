"""Hears what the Rust core has to say, on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from homewire._core import Core
from homewire.errors import CoreFailure

_log = structlog.get_logger(__name__)

OnMessage = Callable[[int, int, bytes], None]
"""Called with a connection's id, the opcode (1 text, 2 binary) and the payload."""

OnClosed = Callable[[int], None]
"""Called with the id of a connection that the core let go of."""

OnReserved = Callable[[int, int, int], None]
"""Called with the id, project and device of a command socket whose handshake is under way."""

OnAdopted = Callable[[int], None]
"""Called with the id of such a socket when the core took it over."""

OnWritten = Callable[[int, int], None]
"""Called with a connection's id and the ticket of a kept command that the kernel took."""

OnExceeded = Callable[[str, int], None]
"""Called with the kind and id of a principal, a connection of which is closed with 1008."""

OnKeys = Callable[[int, Sequence[tuple[int, int, int]]], None]
"""Called with the next cursor and some keys in use, as project, user and key tag."""


class CoreWatch:
    """Dispatches the core's notifications; `failed` is set when one of its threads stopped."""

    def __init__(
        self,
        core: Core,
        on_message: OnMessage | None,
        on_closed: OnClosed,
        on_reserved: OnReserved,
        on_adopted: OnAdopted,
        on_written: OnWritten,
        on_exceeded: OnExceeded,
        on_keys: OnKeys,
    ) -> None:
        self._core = core
        self._on_reserved = on_reserved
        self._on_adopted = on_adopted
        self._on_written = on_written
        self._on_exceeded = on_exceeded
        self._on_keys = on_keys
        self._on_closed = on_closed
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[CoreFailure] = self._loop.create_future()
        self._loop.add_reader(core.notify_fd, self._take)

    def close(self) -> None:
        """Hears no more."""
        self._loop.remove_reader(self._core.notify_fd)

    def _take(self) -> None:
        for notification in self._core.notifications():
            if notification[0] == "message":
                if self._on_message is not None:
                    self._on_message(notification[1], notification[2], notification[3])
            elif notification[0] == "gap":
                _log.warning("bus.gap", shard=notification[1], cause=notification[2])
            elif notification[0] == "reserved":
                self._on_reserved(notification[1], notification[2], notification[3])
            elif notification[0] == "adopted":
                self._on_adopted(notification[1])
            elif notification[0] == "written":
                self._on_written(notification[1], notification[2])
            elif notification[0] == "exceeded":
                self._on_exceeded(notification[1], notification[2])
            elif notification[0] == "keys":
                self._on_keys(notification[1], notification[2])
            elif notification[0] == "closed":
                self._on_closed(notification[1])
            elif notification[0] == "failed" and not self.failed.done():
                self.failed.set_result(CoreFailure(notification[1]))
