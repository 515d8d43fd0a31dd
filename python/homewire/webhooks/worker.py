"""Delivers to one smart module, as the only one in the deployment who does, as long as there is anything.

Deliveries go out in the order in which they came, several at once, and one that fails is overtaken by the
others while it waits for its next try: order is best effort.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from homewire._core import event_json, event_route
from homewire.clock import Clock
from homewire.concurrency import is_cancelling
from homewire.repositories import Store
from homewire.sealing import Sealer
from homewire.settings import Settings
from homewire.webhooks.client import WebhookClient
from homewire.webhooks.models import SmartModule, WebhookStats
from homewire.webhooks.queue import Claim, Delivery
from homewire.webhooks.store import ModuleRegistry

WINDOW: Final = 32
"""Deliveries read at once."""
RETRIES: Final = 1000
"""Deliveries that wait for another try; with more nothing new is begun."""
CHECK_S: Final = 0.25
"""Between two looks for what other nodes picked."""
IDLE_S: Final = 3.0
"""A courier without work stays so long: the next event finds it there."""
LAST_S: Final = 2.0
"""How long requests under way have when the node goes down."""
TOO_OLD: Final = "too old"
LARGEST_EXPONENT: Final = 30
FORGIVING: Final = 16
"""Times its first pause a breaker waits at most."""


def pause(tries: int, first_s: float, longest_s: float) -> float:
    """Seconds after so many tries in vain: doubled with each, up to a longest, the upper half by chance.

    By chance, so that what failed together does not come again together.
    """
    whole = min(longest_s, first_s * 2.0 ** min(tries - 1, LARGEST_EXPONENT))
    return whole * random.uniform(0.5, 1.0)  # noqa: S311 (nothing secret)


@dataclass(slots=True)
class Breaker:
    """Keeps deliveries from a receiver that takes none: closed, open until a time, or half open.

    `failures` in a row open it for `pause_s`. After that one delivery probes: taken, it closes; not taken,
    it opens for twice as long, up to sixteen times. Times are seconds of one clock.
    """

    failures: int
    pause_s: float
    _in_row: int = 0
    _opened: int = 0
    _until: float = float("-inf")
    _probing: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether deliveries go out freely."""
        return self._opened == 0

    @property
    def open_until(self) -> float:
        """When the next probe may go."""
        return self._until

    def open_for(self, now: float, seconds: float) -> None:
        """It was open at another node, for so long from now on.

        Never for longer than it opens here: the end is a time of that node's wall clock, and one that was
        stepped since would keep it open for hours.
        """
        self._opened, self._until = max(1, self._opened), now + min(seconds, FORGIVING * self.pause_s)

    def lets_pass(self, now: float) -> bool:
        """Whether one more delivery may go now. It is to be told how that one ended."""
        if self.is_closed:
            return True
        if self._probing or now < self._until:
            return False
        self._probing = True
        return True

    def taken(self) -> bool:
        """One was taken. Whether that closed it."""
        closed = not self.is_closed
        self._in_row = self._opened = 0
        self._probing = False
        return closed

    def failed(self, now: float) -> bool:
        """One was not taken. Whether that opened it, or kept it open for longer."""
        self._in_row += 1
        if self.is_closed:
            if self._in_row < self.failures:
                return False
        elif not self._probing:
            # It was under way when the breaker opened.
            return False
        self._probing = False
        self._until = now + self.pause_s * min(FORGIVING, 2**self._opened)
        self._opened += 1
        return True

    def unknown(self) -> None:
        """How the probe ended can't be told."""
        self._probing = False


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What couriers share."""

    store: Store
    registry: ModuleRegistry
    poster: WebhookClient
    sealer: Sealer
    settings: Settings
    stats: WebhookStats
    node: str
    """This process's own name."""
    clock: Clock


class DeliveryWorker:
    """One module's deliveries, on this node."""

    def __init__(self, module: SmartModule, deps: Dependencies) -> None:
        self._module = module
        self._deps = deps
        self._clock = deps.clock
        self._now = deps.clock.monotonic
        self._deliveries = deps.store.module_deliveries
        self._settings = deps.settings
        self._breaker = Breaker(self._settings.webhook_breaker_failures, self._settings.webhook_breaker_s)
        self._opened = module
        self._known: SmartModule | None = module
        """What the registry had when URL and keys were opened."""
        self._url = self._key = self._old_key = ""
        self._wakeup = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._retries: list[tuple[float, str]] = []
        """When, and which entry; a heap."""
        self._next: deque[Delivery] = deque()
        self._last = "0"
        """The last entry that was read."""
        self._check_at = 0.0
        self._claim_at = 0.0
        self._idle_since = 0.0

    def wake(self) -> None:
        """There is something to deliver."""
        self._check_at = 0.0
        self._wakeup.set()

    async def run(self) -> bool:
        """Deliver until nothing is left, another node does it, or the module is no more.

        Whether nothing waits any more, for nobody. Raises Unavailable, and ConfigurationError if the module's
        secrets can't be opened.
        """
        claim = await self._claim(idle=False)
        if not claim.held:
            return claim.over
        try:
            await self._prepare()
            return await self._deliver()
        finally:
            self._deps.stats.waiting.pop(self._module.name, None)
            await self._end()

    async def _prepare(self) -> None:
        # Not as the registry remembers it: that knows nothing of breakers.
        module = await self._deps.store.smart_modules.get(self._module.project_id, self._module.id)
        if module is None:
            return
        self._open(module)
        open_s = (module.broken_until_ms - self._clock.now_ms()) / 1000
        if module.broken_until_ms:
            self._breaker.open_for(self._now(), open_s)

    def _open(self, module: SmartModule) -> None:
        """Read URL and keys of this state of the module."""
        opened = self._deps.sealer.open
        self._opened, self._known = module, self._deps.registry.get(module.name)
        self._url, self._key = opened(module.sealed_url), opened(module.sealed_key)
        self._old_key = opened(module.sealed_old_key) if module.sealed_old_key else ""

    def _keys(self) -> list[str]:
        """Those that sign now; one that is being replaced first."""
        known = self._deps.registry.get(self._module.name)
        # Looked at for each delivery: behind a rotation that was answered, the new key signs.
        if known is not None and known.since_ms == self._module.since_ms and known is not self._known:
            self._open(known)
        if self._old_key and self._clock.now_ms() < self._opened.old_key_until_ms:
            return [self._old_key, self._key]
        return [self._key]

    async def _claim(self, *, idle: bool) -> Claim:
        lease_s = self._settings.webhook_lease_s
        claim = await self._deliveries.claim(self._module, self._deps.node, round(lease_s * 1000), idle=idle)
        if claim.held:
            self._deps.stats.waiting[self._module.name] = claim.waiting
        self._claim_at = self._now() + lease_s / 3
        return claim

    async def _deliver(self) -> bool:
        self._idle_since = self._now()
        # (redis-py swallows a cancellation now and then.)
        while self._is_current() and not is_cancelling():
            now = self._now()
            if now >= self._claim_at:
                claim = await self._claim(idle=True)
                if not claim.held:
                    return claim.over
            self._raise_failures()
            await self._start_some()
            if self._running or self._retries or self._next:
                self._idle_since = now
            elif now - self._idle_since > IDLE_S:
                return True
            await self._wait()
        return False

    def _is_current(self) -> bool:
        """Whether the module is still what it was: not deleted, made anew, or suspended."""
        known = self._deps.registry.get(self._module.name)
        if known is None or known.since_ms != self._module.since_ms or known.suspended:
            return False
        if known is not self._module:
            self._module = known
            if known.broken_until_ms == 0 and not self._breaker.is_closed:
                # An operator resumed it.
                self._breaker.taken()
        return True

    async def _start_some(self) -> None:
        while len(self._running) < self._settings.webhook_module_requests:
            if not self._breaker.lets_pass(self._now()):
                return
            delivery = await self._take()
            if delivery is None:
                self._breaker.unknown()
                return
            task = asyncio.create_task(self._try(delivery))
            self._running.add(task)
            task.add_done_callback(lambda _: self._wakeup.set())

    async def _take(self) -> Delivery | None:
        """What is to be tried now, None if nothing is."""
        while self._retries and self._retries[0][0] <= self._now():
            _, entry = heapq.heappop(self._retries)
            delivery = await self._deliveries.one(self._module, entry)
            if delivery is not None and await self._wanted([delivery]):
                return delivery
        if not self._next and len(self._retries) < RETRIES and self._now() >= self._check_at:
            found = await self._deliveries.after(self._module, self._last, WINDOW)
            if found:
                self._last = found[-1].entry
            # After a whole window there may be more at once.
            self._check_at = self._now() + (CHECK_S if len(found) < WINDOW else 0.0)
            self._next.extend(await self._wanted(found))
        return self._next.popleft() if self._next else None

    async def _wanted(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those whose home still exists; the others go."""
        homes = [route[1] if (route := event_route(each.envelope)) else 0 for each in deliveries]
        project = self._module.project_id
        existing = await self._deps.store.homes.existing(project, sorted(set(homes)))
        kept = []
        for delivery, home in zip(deliveries, homes, strict=True):
            if home in existing:
                kept.append(delivery)
            else:
                await self._deliveries.finish(self._module, delivery.entry)
        return kept

    async def _try(self, delivery: Delivery) -> None:
        body = event_json(delivery.envelope)
        if body is None or self._clock.now_ms() - delivery.since_ms > self._settings.webhook_age_s * 1000:
            self._breaker.unknown()
            return await self._dead_letter(delivery.entry, TOO_OLD, 0)
        stats = self._deps.stats
        problem = await self._deps.poster.post(self._url, self._keys(), delivery.event_id, body)
        if problem is None:
            stats.delivered += 1
            await self._deliveries.finish(self._module, delivery.entry)
            if self._breaker.taken():
                await self._deliveries.note_breaker(self._module, 0)
            return None
        stats.failed += 1
        if self._breaker.failed(self._now()):
            open_ms = round((self._breaker.open_until - self._now()) * 1000)
            await self._deliveries.note_breaker(self._module, self._clock.now_ms() + open_ms)
        tries = await self._deliveries.tried(self._module, delivery.entry, problem)
        if tries >= self._settings.webhook_tries:
            return await self._dead_letter(delivery.entry, problem, tries)
        if tries:
            stats.retried += 1
            settings = self._settings
            again_in = pause(tries, settings.webhook_backoff_s, settings.webhook_backoff_max_s)
            heapq.heappush(self._retries, (self._now() + again_in, delivery.entry))
        return None

    async def _dead_letter(self, entry: str, reason: str, tries: int) -> None:
        self._deps.stats.dead_letters += 1
        await self._deliveries.dead_letter(
            self._module, entry, reason, tries, self._settings.webhook_dead_letters
        )

    def _raise_failures(self) -> None:
        """Raise what ended a try: Redis was away, so this courier starts anew when it is back."""
        for task in [task for task in self._running if task.done()]:
            self._running.discard(task)
            task.result()

    async def _wait(self) -> None:
        now = self._now()
        until = [self._claim_at, max(self._check_at, now + CHECK_S)]
        if self._retries:
            until.append(self._retries[0][0])
        if not self._breaker.is_closed:
            until.append(self._breaker.open_until)
        self._wakeup.clear()
        if any(task.done() for task in self._running):
            return
        timeout = max(0.005, min(at for at in until if at > now) - now)
        await self._clock.wait(self._wakeup, timeout)

    async def _end(self) -> None:
        """Let requests under way end, for a moment; then let go of the module."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=LAST_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
        await self._deliveries.release(self._module, self._deps.node)
