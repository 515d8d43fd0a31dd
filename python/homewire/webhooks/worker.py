"""The worker that delivers to one smart module. At any time one node of the deployment runs it.

Deliveries are sent in order, several concurrently. While a failed delivery waits for its next try, later ones
overtake it, so the order is best effort.
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
"""Maximum deliveries that one read returns."""
RETRIES: Final = 1000
"""Maximum deliveries that wait for another try; beyond it no new delivery starts."""
CHECK_S: Final = 0.25
"""Interval of checks for deliveries that other nodes dispatched."""
IDLE_S: Final = 3.0
"""How long a worker without deliveries stays, so that the next event finds it running."""
LAST_S: Final = 2.0
"""How long requests in progress may take when the node stops."""
TOO_OLD: Final = "too old"
LARGEST_EXPONENT: Final = 30
LONGEST_PAUSES: Final = 16
"""Maximum interval of an open circuit breaker, as a multiple of its first interval."""


def pause(tries: int, first_s: float, longest_s: float) -> float:
    """The delay after `tries` failed tries, in seconds. It doubles with each try, up to `longest_s`.

    The upper half of the delay is random, so that deliveries that failed together are retried apart.
    """
    whole = min(longest_s, first_s * 2.0 ** min(tries - 1, LARGEST_EXPONENT))
    return whole * random.uniform(0.5, 1.0)  # noqa: S311 (nothing secret)


@dataclass(slots=True)
class Breaker:
    """A circuit breaker: it stops deliveries to a receiver that fails. It is closed, open or half open.

    `failures` consecutive failures open it for `pause_s` seconds. Then one delivery probes the receiver. A
    success closes the breaker. A failure opens it for twice as long, at most 16 times `pause_s`.
    """

    failures: int
    pause_s: float
    _in_row: int = 0
    _opened: int = 0
    _until: float = float("-inf")
    _probing: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether all deliveries may be sent."""
        return self._opened == 0

    @property
    def open_until(self) -> float:
        """When the next probe may be sent."""
        return self._until

    def open_for(self, now: float, seconds: float) -> None:
        """Continue the interval that another node began; `seconds` of it are left.

        The interval is at most the longest of this breaker. Its end is a time of the other node's wall clock,
        and a clock that was stepped could keep the breaker open for hours.
        """
        self._opened, self._until = max(1, self._opened), now + min(seconds, LONGEST_PAUSES * self.pause_s)

    def lets_pass(self, now: float) -> bool:
        """Whether one more delivery may be sent now. Its outcome must be reported."""
        if self.is_closed:
            return True
        if self._probing or now < self._until:
            return False
        self._probing = True
        return True

    def taken(self) -> bool:
        """Report a success. Returns whether it closed the breaker."""
        closed = not self.is_closed
        self._in_row = self._opened = 0
        self._probing = False
        return closed

    def failed(self, now: float) -> bool:
        """Report a failure. Returns whether it opened the breaker, or opened it again."""
        self._in_row += 1
        if self.is_closed:
            if self._in_row < self.failures:
                return False
        elif not self._probing:
            # The request began before the breaker opened.
            return False
        self._probing = False
        self._until = now + self.pause_s * min(LONGEST_PAUSES, 2**self._opened)
        self._opened += 1
        return True

    def unknown(self) -> None:
        """Report a probe without an outcome."""
        self._probing = False


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What all workers share."""

    store: Store
    registry: ModuleRegistry
    client: WebhookClient
    sealer: Sealer
    settings: Settings
    stats: WebhookStats
    node: str
    """The unique name of this process."""
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
        """The module in the registry when URL and keys were decrypted."""
        self._url = self._key = self._old_key = ""
        self._wakeup = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._retries: list[tuple[float, str]] = []
        """A heap of times and entries."""
        self._next: deque[Delivery] = deque()
        self._last = "0"
        """The last entry that was read."""
        self._check_at = 0.0
        self._claim_at = 0.0
        self._idle_since = 0.0

    def wake(self) -> None:
        """Check for deliveries at once."""
        self._check_at = 0.0
        self._wakeup.set()

    async def run(self) -> bool:
        """Deliver until nothing is left, another node delivers, or the module was deleted.

        Returns whether no delivery waits. Raises Unavailable, and ConfigurationError if the module's secrets
        can't be decrypted.
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
        # Not from the registry: its record may have an old state of the breaker.
        module = await self._deps.store.smart_modules.get(self._module.project_id, self._module.id)
        if module is None:
            return
        self._open(module)
        open_s = (module.broken_until_ms - self._clock.now_ms()) / 1000
        if module.broken_until_ms:
            self._breaker.open_for(self._now(), open_s)

    def _open(self, module: SmartModule) -> None:
        """Decrypt URL and keys of this version of the module."""
        opened = self._deps.sealer.open
        self._opened, self._known = module, self._deps.registry.get(module.name)
        self._url, self._key = opened(module.sealed_url), opened(module.sealed_key)
        self._old_key = opened(module.sealed_old_key) if module.sealed_old_key else ""

    def _keys(self) -> list[str]:
        """The keys that sign now, an old one first."""
        known = self._deps.registry.get(self._module.name)
        # Checked for each delivery, so that the new key signs once the rotation was answered.
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
        """Whether the module still gets deliveries: it is not deleted, replaced or suspended."""
        known = self._deps.registry.get(self._module.name)
        if known is None or known.since_ms != self._module.since_ms or known.suspended:
            return False
        if known is not self._module:
            self._module = known
            if known.broken_until_ms == 0 and not self._breaker.is_closed:
                # An operator resumed the module.
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
        """The deliveries whose home still exists. The others are removed."""
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
        problem = await self._deps.client.post(self._url, self._keys(), delivery.event_id, body)
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
        """Raise the error that ended a try. The service starts the worker again when Redis is back."""
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
        """Give requests in progress a moment to end, then release the module."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=LAST_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
        await self._deliveries.release(self._module, self._deps.node)
