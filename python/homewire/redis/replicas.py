"""Writes that count as confirmed once replicas have them, too (`--ack replicas`): WAIT behind each write.

One WAIT confirms all that its connection wrote before. So it costs one command for each write, however many
commands that has, and the time until the replicas answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from homewire.redis.connection import PendingWrite, pack

WAIT_MS: Final = 1000
"""How long the replicas may take. A request is answered within 5 s, and may need several writes."""


class ReplicatedWrite:
    """Several writes and a WAIT as one (`homewire.redis.connection.PendingWrite`): they are settled together.

    With too few replicas all of them fail like commands without a reply: they may have happened.
    """

    __slots__ = ("_failure", "_replicas", "_writes", "data", "deadline", "expected", "replies", "waiter")

    def __init__(self, writes: Sequence[PendingWrite], replicas: int, failure: type[Exception]) -> None:
        """`replicas` must confirm. `failure` is raised, without arguments, if they do not."""
        self.data = b"".join([each.data for each in writes]) + pack(("WAIT", replicas, WAIT_MS))
        self.expected = sum([each.expected for each in writes]) + 1
        self.deadline = writes[0].deadline
        self.replies: list[Any] = []
        self.waiter: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        """Done when all writes are settled."""
        self._writes = writes
        self._replicas = replicas
        self._failure = failure

    def settle(self, failure: Exception | None = None) -> None:
        """Settle each write: with its replies, or with `failure`."""
        if failure is None and not self._is_confirmed():
            failure = self._failure()
        at = 0
        for each in self._writes:
            if failure is None:
                each.replies.extend(self.replies[at : at + each.expected])
                at += each.expected
            each.settle(failure)
        if not self.waiter.done():
            self.waiter.set_result([])

    def _is_confirmed(self) -> bool:
        confirmed = self.replies[-1]
        return isinstance(confirmed, int) and confirmed >= self._replicas
