"""When a connection has to be closed, and with which codes it may be (the model of `delivery_model.py`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import inf
from typing import Any, Final

from delivery_model import NOWHERE, Change, Code, Fact, Kind, Listener, Permission, Thing, Truth

BEHIND_S: Final = 30.0
"""How long ago a change may have been that a node which was stopped has yet to read."""

CLOCKS_S: Final = 1.0
"""How far the clocks may differ by which a node tells a change from before a connection from one after it."""


@dataclass(frozen=True)
class Cause:
    """Something that ends a connection."""

    code: int
    asked: float
    """From here on it may happen."""
    answered: float
    """By then it has happened; infinite if it is not certain to end this connection."""


@dataclass(frozen=True)
class Loss:
    """A topic goes. Infinite, if it does not."""

    asked: float = inf
    answered: float = inf


def causes(truth: Truth, listener: Listener) -> list[Cause]:
    """Everything that ends this connection, or may."""
    found = [
        Cause(code, loss.asked, loss.answered)
        for fact, code in truth.lives(listener)
        for loss in _effective(fact, listener)
    ]
    if listener.filter.kind is Kind.HOMES:
        permissions = ((Permission(Kind.HOMES, home), home) for home in listener.filter.ids)
        found += _all_gone(
            _access_loss(truth, listener, permission, home) for permission, home in permissions
        )
    if things := truth.things(listener):
        found += _all_gone(_thing_loss(truth, listener, thing) for thing in things)
        found += _moves(truth, listener)
    return found + _doubts(truth, listener)


def may_doubt(truth: Truth, listener: Listener) -> bool:
    """Whether it may be sent away with 4004 as soon as it came: its node read of a change from before."""
    return bool(_doubts(truth, listener))


def due(truth: Truth, listener: Listener) -> float:
    """When it is certain that the connection has to close; infinite if it has not to."""
    ends = [cause.answered for cause in causes(truth, listener)]
    return max(min(ends, default=inf), listener.answered)


def allowed(truth: Truth, listener: Listener) -> set[int]:
    """The codes that it may have been closed with at the moment at which it was."""
    return {cause.code for cause in causes(truth, listener) if cause.asked <= listener.closed}


def must_accept(truth: Truth, listener: Listener) -> bool:
    """Whether the handshake had to be answered with 101."""
    places = [_place(thing, listener) for thing in truth.things(listener)]
    needs = _needs(truth, listener, places)
    return all(fact.surely_is(True, listener.asked, listener.answered) for fact in needs)


def may_accept(truth: Truth, listener: Listener) -> bool:
    """Whether it could be. With what has just been lost too: then it is closed at once."""
    possible = [thing.place.possible(listener.asked, listener.answered) for thing in truth.things(listener)]
    return any(_may_accept_with(truth, listener, places) for places in product(*possible))


def _may_accept_with(truth: Truth, listener: Listener, places: Iterable[int]) -> bool:
    return all(
        fact.may_be(True, listener.asked, listener.answered) or _effective(fact, listener)
        for fact in _needs(truth, listener, places)
    )


def _needs(truth: Truth, listener: Listener, places: Iterable[int]) -> list[Fact[bool]]:
    """What has to be so, given the homes of the things that it names."""
    needs = [fact for fact, _ in truth.lives(listener)]
    if truth.by_permission and listener.filter.kind is Kind.ALL:
        needs.append(Fact(False))  # There is no permission for all.
    if listener.filter.kind is Kind.HOMES:
        for home in listener.filter.ids:
            needs += [truth.homes[home], truth.access(listener, Permission(Kind.HOMES, home), home)]
    for thing, home in zip(truth.things(listener), places, strict=True):
        needs += [thing.exists, truth.access(listener, thing.access, home)]
        needs.append(truth.homes[home] if home != NOWHERE else Fact(False))
    return needs


def _doubts(truth: Truth, listener: Listener) -> list[Cause]:
    """Losses just before the handshake, whether made good since or not, that its node had yet to read.

    Whoever follows its user's homes need not come again for a membership: it follows these changes too.
    """
    losses: list[Change[Any]] = list(truth.project.losses(True))
    accesses = list[Fact[bool]]()
    if listener.filter.kind is Kind.HOMES:
        accesses += [
            truth.access(listener, Permission(Kind.HOMES, home), home) for home in listener.filter.ids
        ]
        accesses += [truth.homes[home] for home in listener.filter.ids]
    for thing in truth.things(listener):
        places = thing.place.possible(listener.asked, listener.answered)
        # It may have left the home that it is in again.
        losses += [loss for place in places for loss in thing.place.losses(place)]
        accesses += [truth.access(listener, thing.access, place) for place in places]
        accesses += [truth.homes[place] for place in places - {NOWHERE}]
    losses += [loss for access in accesses for loss in access.losses(True)]
    return [
        Cause(Code.MOVED, loss.asked, inf)
        for loss in losses
        if loss.asked <= listener.answered + CLOCKS_S and loss.answered > listener.asked - BEHIND_S
    ]


def _place(thing: Thing, listener: Listener) -> int:
    """Where it was when the listener came; NOWHERE also if that is not certain."""
    places = thing.place.possible(listener.asked, listener.answered)
    return places.pop() if len(places) == 1 else NOWHERE


def _effective(fact: Fact[bool], listener: Listener) -> list[Loss]:
    """The losses that count for a listener: from its handshake on, or what was lost when it came."""
    found: list[Loss] = []
    for loss in fact.losses(True):
        regained = _regained(fact, loss)
        if regained.answered <= listener.asked:
            continue  # It was long ago.
        # Regained before the listener was in: it may have got in behind both.
        is_certain = loss.asked >= listener.answered or regained.asked > listener.answered
        found.append(Loss(loss.asked, loss.answered if is_certain else inf))
    return found


def _regained(fact: Fact[bool], loss: Change[bool]) -> Loss:
    for change in fact.changes:
        if change.asked >= loss.answered and change.value:
            return Loss(change.asked, change.answered)
    return Loss()


def _first(losses: Iterable[Loss]) -> Loss:
    known = list(losses)
    return Loss(
        min((loss.asked for loss in known), default=inf), min((loss.answered for loss in known), default=inf)
    )


def _access_loss(truth: Truth, listener: Listener, permission: Permission, home: int) -> Loss:
    facts = truth.homes[home], truth.access(listener, permission, home)
    return _first(loss for fact in facts for loss in _effective(fact, listener))


def _thing_loss(truth: Truth, listener: Listener, thing: Thing) -> Loss:
    """How its topic, in the home where it was, goes other than by a move."""
    gone = _effective(thing.exists, listener)
    place = _place(thing, listener)
    if place == NOWHERE:
        places = thing.place.possible(listener.asked, listener.answered)
        some = [_access_loss(truth, listener, thing.access, each) for each in places if each != NOWHERE]
        # In which of them it was nobody knows, so nothing is certain.
        gone += [Loss(loss.asked) for loss in some]
    else:
        gone.append(_access_loss(truth, listener, thing.access, place))
    return _first(gone)


def _all_gone(topics: Iterable[Loss]) -> list[Cause]:
    known = list(topics)
    last = Loss(max(loss.asked for loss in known), max(loss.answered for loss in known))
    return [Cause(Code.ACCESS_ENDED, last.asked, last.answered)] if last.asked < inf else []


def _moves(truth: Truth, listener: Listener) -> list[Cause]:
    found: list[Cause] = []
    for thing in truth.things(listener):
        place, lost = _place(thing, listener), _thing_loss(truth, listener, thing)
        for change in thing.place.changes:
            if change.answered < listener.asked:
                continue
            # Of a topic that went before, the move is not received.
            stayed = place != NOWHERE and lost.asked > change.answered
            is_certain = stayed and change.asked >= listener.answered
            found.append(Cause(Code.MOVED, change.asked, change.answered if is_certain else inf))
    return found
