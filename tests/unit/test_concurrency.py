"""Coalescing of concurrent requests, and writing behind requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest

from homewire.concurrency import SingleFlight, WriteBehind
from homewire.errors import Unavailable

KEY = "a"


class Call:
    """Calls that end when the test says so: with the items in capitals, or with an error."""

    def __init__(self) -> None:
        self.begun = asyncio.Semaphore(0)
        self.ends: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.items: list[tuple[str, ...]] = []

    async def __call__(self, key: str, items: Sequence[str]) -> list[str]:
        self.items.append(tuple(items))
        self.begun.release()
        end = await self.ends.get()
        if end is not None:
            raise end
        return [item.upper() for item in items]


Flight = SingleFlight[str, str, str]


async def requests(flight: Flight, items: str, key: str = KEY) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(flight.ask(key, item)) for item in items]
    await asyncio.sleep(0)
    return tasks


async def test_requests_during_a_call_share_the_next_one() -> None:
    call = Call()
    flight: Flight = SingleFlight(call, 5.0)
    first = await requests(flight, "ab")
    await call.begun.acquire()
    later = await requests(flight, "cde")
    call.ends.put_nowait(None)
    assert await asyncio.gather(*first) == ["A", "B"]
    await call.begun.acquire()
    assert not any(task.done() for task in later)
    call.ends.put_nowait(None)
    assert await asyncio.gather(*later) == ["C", "D", "E"]
    assert (len(flight), call.items) == (0, [("a", "b"), ("c", "d", "e")])


async def test_keys_do_not_wait_for_each_other() -> None:
    call = Call()
    flight: Flight = SingleFlight(call, 5.0)
    tasks = await requests(flight, "a", "one") + await requests(flight, "b", "two")
    await call.begun.acquire()
    await call.begun.acquire()
    assert len(flight) == 2
    call.ends.put_nowait(None)
    call.ends.put_nowait(None)
    assert await asyncio.gather(*tasks) == ["A", "B"]


async def test_call_gets_at_most_so_many_items() -> None:
    call = Call()
    flight: Flight = SingleFlight(call, 5.0, max_requests=2)
    tasks = await requests(flight, "abcde")
    for _ in range(3):
        call.ends.put_nowait(None)
    assert await asyncio.gather(*tasks) == list("ABCDE")
    assert call.items == [("a", "b"), ("c", "d"), ("e",)]


async def test_cancelled_request_leaves_the_others_their_replies() -> None:
    call = Call()
    flight: Flight = SingleFlight(call, 5.0)
    tasks = await requests(flight, "abc")
    await call.begun.acquire()
    tasks[0].cancel()
    call.ends.put_nowait(None)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == ["B", "C"]


async def test_error_is_raised_to_the_requests_of_its_call_only() -> None:
    call = Call()
    flight: Flight = SingleFlight(call, 5.0)
    first = await requests(flight, "ab")
    await call.begun.acquire()
    later = await requests(flight, "c")
    call.ends.put_nowait(OSError("no"))
    call.ends.put_nowait(None)
    assert [str(each) for each in await asyncio.gather(*first, return_exceptions=True)] == ["no", "no"]
    assert await later[0] == "C"


async def test_call_ends_at_its_timeout_and_a_request_at_its_deadline() -> None:
    flight: Flight = SingleFlight(Call(), 0.05)
    with pytest.raises(TimeoutError):
        await flight.ask(KEY, "a")
    assert len(flight) == 0
    patient: Flight = SingleFlight(Call())
    with pytest.raises(TimeoutError):
        await patient.ask(KEY, "a", asyncio.get_running_loop().time())
    assert len(patient) == 1


async def test_after_runs_once_behind_the_last_call() -> None:
    call, rested = Call(), list[str]()

    async def after(key: str) -> None:
        rested.append(key)

    flight: Flight = SingleFlight(call, 5.0, after=after)
    tasks = await requests(flight, "a")
    await call.begun.acquire()
    tasks += await requests(flight, "b")
    call.ends.put_nowait(None)
    call.ends.put_nowait(None)
    await asyncio.gather(*tasks)
    await flight.close()
    assert rested == [KEY]


class Buffer:
    """Changes in the order in which they will be written, one a batch."""

    def __init__(self, changes: str = "") -> None:
        self.changes = list(changes)
        self.pending = asyncio.Event()
        if changes:
            self.pending.set()

    def take(self, batches: int) -> list[str]:
        taken, self.changes = self.changes[:batches], self.changes[batches:]
        if not self.changes:
            self.pending.clear()
        return taken

    def put_back(self, batches: Iterable[str]) -> None:
        self.changes[:0] = batches
        if self.changes:
            self.pending.set()

    def waiting(self) -> int:
        return len(self.changes)


class Storage:
    """Stores changes unless `down`, and says when `expected` of them are stored."""

    def __init__(self, expected: int, failures: int = 0) -> None:
        self.stored: list[str] = []
        self.failures = failures
        self.full = asyncio.Event()
        self.concurrent = self.most = 0
        self._expected = expected

    async def write(self, change: str) -> None:
        self.concurrent += 1
        self.most = max(self.most, self.concurrent)
        await asyncio.sleep(0)
        self.concurrent -= 1
        if self.failures:
            self.failures -= 1
            raise Unavailable("down")
        self.stored.append(change)
        if len(self.stored) == self._expected:
            self.full.set()


@asynccontextmanager
async def running(writer: WriteBehind[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(writer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_changes_are_written_concurrently_up_to_the_number_of_batches() -> None:
    buffer, storage = Buffer("abcde"), Storage(5)
    writer = WriteBehind(buffer, storage.write, batches=2, failed=lambda _: None)
    async with running(writer), asyncio.timeout(20):
        await storage.full.wait()
    assert (storage.stored, storage.most) == (list("abcde"), 2)


async def test_failed_changes_are_written_again_and_reported_once_a_series() -> None:
    buffer, storage, reports = Buffer("ab"), Storage(2, failures=4), list[int]()
    writer = WriteBehind(buffer, storage.write, batches=2, failed=reports.append, retry_s=0)
    async with running(writer), asyncio.timeout(20):
        await storage.full.wait()
        assert (storage.stored, reports) == (list("ab"), [2])
        storage.full.clear()
        storage.stored, storage.failures = [], 2
        buffer.put_back("yz")
        await storage.full.wait()
    assert (storage.stored, reports) == (list("yz"), [2, 2])


async def test_drain_ends_when_nothing_waits_or_a_write_fails() -> None:
    buffer, storage = Buffer("abc"), Storage(3)
    writer = WriteBehind(buffer, storage.write, batches=2, failed=lambda _: None)
    assert await writer.drain()
    assert storage.stored == list("abc")
    buffer.put_back("de")
    storage.failures = 1
    assert not await writer.drain()
    assert buffer.changes == ["d"]


async def test_cancelled_write_leaves_its_changes_in_the_buffer() -> None:
    buffer, begun = Buffer("ab"), asyncio.Event()

    async def write(_: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with running(WriteBehind(buffer, write, batches=2, failed=lambda _: None)), asyncio.timeout(20):
        await begun.wait()
    assert buffer.changes == ["a", "b"]
