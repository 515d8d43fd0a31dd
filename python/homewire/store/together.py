"""Questions that come while others are being answered are asked together, in one round trip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

Question = TypeVar("Question")
Reply = TypeVar("Reply")

MOST: Final = 100


class Together(Generic[Question, Reply]):
    """Asks for many. The first goes out at once; whoever comes before its reply shares the next trip.

    So thousands at one moment take one connection to Redis and not all of them, and nobody waits for more
    than the trip under way and its own.
    """

    def __init__(self, ask: Callable[[Sequence[Question]], Awaitable[Sequence[Reply]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Question, asyncio.Future[Reply]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Reply:
        """The reply to one question. Raises what the whole trip raised."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        return await future

    async def _ask_all(self) -> None:
        try:
            while self._waiting:
                some, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                asked = [(question, future) for question, future in some if not future.done()]
                try:
                    replies = await self._ask([question for question, _ in asked])
                except Exception as error:
                    _fail(asked, error)
                except asyncio.CancelledError as error:
                    _fail(asked, error)
                    raise
                else:
                    for (_, future), reply in zip(asked, replies, strict=True):
                        if not future.done():
                            future.set_result(reply)
        finally:
            self._asking = None
            _fail(self._waiting, asyncio.CancelledError())
            self._waiting = []


def _fail(asked: Sequence[tuple[object, asyncio.Future[Reply]]], error: BaseException) -> None:
    for _, future in asked:
        if not future.done():
            future.set_exception(error)
