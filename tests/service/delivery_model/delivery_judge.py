"""Compares what was received with the model: every difference is a complaint in words."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Final

from delivery_closing import allowed, due, may_accept, may_doubt, must_accept
from delivery_model import NOWHERE, Code, Event, Listener, Truth

CLOSED_WITHIN_S: Final = 2.0
"""The contract: a connection without access is closed so long after the answer to the change."""


class Judge:
    """The complaints about one project, once nothing is on its way any more."""

    def __init__(
        self,
        truth: Truth,
        listeners: Sequence[Listener],
        events: Mapping[int, Event],
        assured: Mapping[int, float],
        now: float,
        absences: Sequence[tuple[int, float, float]] = (),
    ) -> None:
        """`assured` says of each listener that went by itself up to when it was waited for, `absences`
        which node did nothing from when to when."""
        self._truth = truth
        self._listeners = listeners
        self._events = events
        self._assured = assured
        self._now = now
        self._absences = absences
        self._first_received = _first_received(listeners)

    def complaints(self) -> list[str]:
        found = [
            f"event {event.number} was refused: {event}"
            for event in self._events.values()
            if not event.taken and self._truth.must_take(event)
        ]
        for listener in self._listeners:
            checks = (self._admission, self._missing, self._wrong, self._disorder, self._closing)
            trouble = [complaint for check in checks for complaint in check(listener)]
            if trouble:
                found.append(f"listener {listener.name} {describe(listener)}")
                found += [f"    {complaint}" for complaint in trouble]
        return found

    def delay(self) -> float:
        """The longest that an event was under way once it was answered, in seconds."""
        return max(
            (
                when - self._awake(listener.node, max(self._events[number].answered, listener.answered))
                for listener in self._listeners
                for number, _, when in listener.received
                if number in self._events
            ),
            default=0.0,
        )

    def _awake(self, node: int, moment: float) -> float:
        """The moment, or when the node was there again."""
        ends = [until for which, since, until in self._absences if which == node and since <= moment < until]
        return max(ends, default=moment)

    def _admission(self, listener: Listener) -> Iterator[str]:
        if listener.accepted and not may_accept(self._truth, listener):
            yield "was let in without any permission"
        if not listener.accepted and must_accept(self._truth, listener):
            yield f"was refused with {listener.status}"

    def _missing(self, listener: Listener) -> Iterator[str]:
        received = {number for number, _, _ in listener.received}
        if listener.code == Code.MOVED and may_doubt(self._truth, listener):
            return  # It comes again, and was never promised anything.
        until = inf if listener.left == inf else self._assured.get(listener.name, -inf)
        for event in self._events.values():
            if event.number in received or event.answered > until:
                continue
            if self._truth.must_receive(listener, event):
                yield f"did not receive {event}"

    def _wrong(self, listener: Listener) -> Iterator[str]:
        for number, times in Counter(number for number, _, _ in listener.received).items():
            if times > 1:
                yield f"received event {number} {times} times"
        for number, home, when in listener.received:
            event = self._events.get(number)
            if event is None:
                yield f"received {number}, which is no event of its project"
            elif not self._truth.may_receive(listener, event):
                yield f"must not receive, and received after {when - event.asked:.4f} s, {event}"
            elif not event.command and home not in self._truth.homes_of(event) - {NOWHERE}:
                yield f"received as of home {home}: {event}"
            elif self._first_received[listener.node][number] < listener.asked:
                yield f"received what others had received before it came: {event}"

    def _disorder(self, listener: Listener) -> Iterator[str]:
        by_home: defaultdict[int, list[Event]] = defaultdict(list)
        for number, home, _ in listener.received:
            if number in self._events:
                event = self._events[number]
                for before in by_home[home]:
                    if _precedes(event, before):
                        yield f"received event {event.number} behind {before.number}"
                by_home[home].append(event)

    def _closing(self, listener: Listener) -> Iterator[str]:
        if not listener.accepted:
            return
        deadline = self._awake(listener.node, due(self._truth, listener))
        if listener.code is not None and listener.closed < listener.left:
            codes = allowed(self._truth, listener)
            if listener.code not in codes:
                yield f"was closed with {listener.code}; expected {sorted(codes) or 'to stay'}"
            late = listener.closed - deadline
            if late > CLOSED_WITHIN_S + self.delay():
                yield f"was closed {late:.3f} s after the change"
        elif min(listener.left, self._now) > deadline + CLOSED_WITHIN_S + self.delay():
            yield f"was not closed within {self._now - deadline:.3f} s"


def describe(listener: Listener) -> str:
    """Who it is and what it asked for."""
    holder = "device" if listener.key.of_device else "user"
    what = f"{listener.filter.kind.value} {[*listener.filter.ids, *listener.filter.entities]}"
    return (
        f"({holder} {listener.key.whose}, key {listener.key.number}, node {listener.node}, {what}, "
        f"asked {listener.asked:.4f}, answered {listener.answered:.4f} with {listener.status}, "
        f"closed {listener.closed:.4f} with {listener.code})"
    )


def _precedes(event: Event, other: Event) -> bool:
    """Whether it came first for certain."""
    if event.request and event.request == other.request:
        # Their numbers grow within the request.
        return event.number < other.number
    return event.answered < other.asked


def _first_received(listeners: Sequence[Listener]) -> dict[int, defaultdict[int, float]]:
    """For each node the moment at which somebody first received each event."""
    first: dict[int, defaultdict[int, float]] = defaultdict(lambda: defaultdict(lambda: inf))
    for listener in listeners:
        for number, _, when in listener.received:
            first[listener.node][number] = min(first[listener.node][number], when)
    return first
