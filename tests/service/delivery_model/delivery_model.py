"""What each connection receives: a model of the promise, simple enough to be believed.

Nobody outside can say at which moment a change or an event took its place in the bus, only that it was
between asking and answer. So the model knows intervals of one monotonic clock (seconds) and answers two
questions about a listener and an event. It *must* be received if the listener had the permission and the
subscription at each possible moment. It *may* be received if there was a moment with both. What lies in
between is left to the router.

Ids are those of the plan (`delivery_plan.py`), not those of the store.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

NOWHERE: Final = -1
"""The place of a device that is in no home."""


class Code:
    """The close codes of `docs/close-codes.md` that a change of permissions has."""

    MOVED: Final = 4004
    ACCESS_ENDED: Final = 4500
    PRINCIPAL_DELETED: Final = 4501
    KEY_ENDED: Final = 4502
    PROJECT_ENDED: Final = 4503


@dataclass(frozen=True)
class Change(Generic[Value]):
    """A fact became `value` at some moment between `asked` and `answered`."""

    asked: float
    answered: float
    value: Value


class Fact(Generic[Value]):
    """Something that is so or otherwise, and changes one change after another."""

    def __init__(self, value: Value) -> None:
        self.changes = [Change(-inf, -inf, value)]

    def become(self, value: Value, asked: float, answered: float) -> None:
        """A change that was answered. Changes of one fact must not overlap."""
        assert self.changes[-1].answered <= asked <= answered
        self.changes.append(Change(asked, answered, value))

    def possible(self, since: float, until: float) -> set[Value]:
        """Every value that may hold at some moment of [since, until]."""
        ends = [*(change.answered for change in self.changes[1:]), inf]
        spans = zip(self.changes, ends, strict=True)
        return {change.value for change, end in spans if change.asked <= until and end >= since}

    def may_be(self, value: Value, since: float, until: float) -> bool:
        return value in self.possible(since, until)

    def surely_is(self, value: Value, since: float, until: float) -> bool:
        """Whether no other value may hold at any moment of [since, until]."""
        return self.possible(since, until) == {value}

    def losses(self, value: Value) -> Iterator[Change[Value]]:
        """The changes away from `value`."""
        for before, change in zip(self.changes, self.changes[1:], strict=False):
            if before.value == value != change.value:
                yield change

    def surely_lost(self, value: Value, since: float, until: float) -> bool:
        """Whether it changed away from `value` wholly within [since, until]."""
        return any(since <= loss.asked and loss.answered <= until for loss in self.losses(value))

    def may_be_lost(self, value: Value, since: float, until: float) -> bool:
        """Whether it may have changed away from `value` at some moment of [since, until]."""
        return any(loss.asked <= until and loss.answered >= since for loss in self.losses(value))


class Kind(Enum):
    """What a connection asks for."""

    ALL = "all"
    HOMES = "homeId"
    DEVICES = "deviceId"
    ENTITIES = "entityId"
    COMMANDS = "commands"


@dataclass(frozen=True)
class Filter:
    """A filter: ids of homes or devices, or names of entities."""

    kind: Kind
    ids: tuple[int, ...] = ()
    entities: tuple[str, ...] = ()

    @property
    def follows(self) -> bool:
        """Whether events of homes that the user enters are received from then on."""
        return self.kind in (Kind.ALL, Kind.ENTITIES)


@dataclass(frozen=True)
class Permission:
    """To receive what a filter of this kind names by permission: a home, a device or an entity."""

    kind: Kind
    what: int | str


@dataclass(frozen=True)
class Key:
    """The n-th key of a user or of a device."""

    of_device: bool
    whose: int
    number: int


@dataclass
class Listener:
    """A connection as its client saw it."""

    name: int
    node: int
    key: Key
    filter: Filter
    asked: float
    answered: float
    status: int = 101
    left: float = inf
    """When the client went away by itself."""
    code: int | None = None
    closed: float = inf
    received: list[tuple[int, int, float]] = field(default_factory=list)
    """Number of the event, the home that it names (of a command NOWHERE), and when."""

    @property
    def accepted(self) -> bool:
        return self.status == 101


@dataclass(frozen=True)
class Event:
    """An event or a command as its sender saw it."""

    number: int
    asked: float
    answered: float
    taken: bool
    home: int = NOWHERE
    """The home that it was sent to, if it was sent to one."""
    device: int | None = None
    entity: str | None = None
    command: bool = False
    request: int = 0
    """Not 0: a request of several events, which have their order in it."""
    key: Key | None = None
    """The key of the device that sent it itself."""


@dataclass(frozen=True)
class Thing:
    """What a connection named that is received in one home only, the one that it was in when it came."""

    name: int | str
    place: Fact[int]
    exists: Fact[bool]
    access: Permission

    def is_subject(self, event: Event) -> bool:
        return self.name == (event.entity if self.access.kind is Kind.ENTITIES else event.device)


@dataclass
class Truth:
    """All facts of one project."""

    by_permission: bool = False
    """Whether permissions decide what is received, and not memberships."""

    project: Fact[bool] = field(default_factory=lambda: Fact(True))
    keys: defaultdict[Key, Fact[bool]] = field(default_factory=lambda: defaultdict(lambda: Fact(True)))
    users: defaultdict[int, Fact[bool]] = field(default_factory=lambda: defaultdict(lambda: Fact(True)))
    homes: defaultdict[int, Fact[bool]] = field(default_factory=lambda: defaultdict(lambda: Fact(True)))
    """Whether its events are delivered: it exists, and is not deactivated."""
    devices: defaultdict[int, Fact[bool]] = field(default_factory=lambda: defaultdict(lambda: Fact(True)))
    members: defaultdict[tuple[int, int], Fact[bool]] = field(
        default_factory=lambda: defaultdict(lambda: Fact(False))
    )
    """By user and home."""
    places: defaultdict[int, Fact[int]] = field(default_factory=lambda: defaultdict(lambda: Fact(NOWHERE)))
    """The home of a device. A deleted home stays the place of what was in it: nothing is received there."""
    bindings: defaultdict[str, Fact[int]] = field(default_factory=lambda: defaultdict(lambda: Fact(NOWHERE)))
    """The home that an entity is bound to; likewise."""
    permissions: defaultdict[tuple[int, Permission], Fact[bool]] = field(
        default_factory=lambda: defaultdict(lambda: Fact(False))
    )
    """By user."""

    def must_receive(self, listener: Listener, event: Event) -> bool:
        """Whether the listener, if it stays, has to receive the event."""
        if not listener.accepted or not event.taken or event.asked < listener.answered:
            return False
        if not all(self._stands(fact, True, listener, event) for fact, _ in self.lives(listener)):
            return False
        if event.command or listener.filter.kind is Kind.COMMANDS:
            return _is_command_for(listener, event)
        homes = self.homes_of(event) - {NOWHERE}
        return bool(homes) and all(self._must_receive_in(home, listener, event) for home in homes)

    def may_receive(self, listener: Listener, event: Event) -> bool:
        """Whether there were moments at which the event would rightly have reached the listener."""
        if not listener.accepted or not event.taken:
            return False
        if not all(self._may_stand(fact, True, listener, event) for fact, _ in self.lives(listener)):
            return False
        if event.command or listener.filter.kind is Kind.COMMANDS:
            return _is_command_for(listener, event)
        homes = self.homes_of(event) - {NOWHERE}
        return any(self._may_receive_in(home, listener, event) for home in homes)

    def must_take(self, event: Event) -> bool:
        """Whether a node that is asked has to take the event."""
        facts = [self.project]
        if event.key is not None:
            facts.append(self.keys[event.key])
        if event.device is not None:
            facts.append(self.devices[event.device])
        homes = self.homes_of(event)
        if not event.command and (NOWHERE in homes or not self._is_at_home(event, homes)):
            return False
        # Where a device is whose home was deleted nobody says, so no command to it is surely taken.
        facts += [self.homes[home] for home in homes - {NOWHERE}]
        return all(fact.surely_is(True, event.asked, event.answered) for fact in facts)

    def _is_at_home(self, event: Event, homes: set[int]) -> bool:
        """Whether its entity is surely bound to none but this home."""
        if event.entity is None:
            return True
        bound = self.bindings[event.entity].possible(event.asked, event.answered)
        return bound <= {NOWHERE} or (bound <= {NOWHERE, *homes} and len(homes) == 1)

    def access(self, listener: Listener, permission: Permission, home: int) -> Fact[bool]:
        """What lets somebody receive this, which is in that home."""
        if self.by_permission:
            return self.permissions[listener.key.whose, permission]
        return self.members[listener.key.whose, home]

    def things(self, listener: Listener) -> list[Thing]:
        """What the connection named and receives in one home only."""
        wanted = listener.filter
        if wanted.kind is Kind.DEVICES:
            return [
                Thing(each, self.places[each], self.devices[each], Permission(wanted.kind, each))
                for each in wanted.ids
            ]
        if wanted.kind is Kind.ENTITIES and self.by_permission:
            return [
                Thing(each, self.bindings[each], Fact(True), Permission(wanted.kind, each))
                for each in wanted.entities
            ]
        return []

    def lives(self, listener: Listener) -> list[tuple[Fact[bool], int]]:
        """What a connection lives by, and with which code it ends without it."""
        principals = self.devices if listener.key.of_device else self.users
        return [
            (self.keys[listener.key], Code.KEY_ENDED),
            (principals[listener.key.whose], Code.PRINCIPAL_DELETED),
            (self.project, Code.PROJECT_ENDED),
        ]

    def homes_of(self, event: Event) -> set[int]:
        """The homes that it may have been stamped with; NOWHERE if its device may have been in none."""
        if event.device is None:
            return {event.home}
        return self.places[event.device].possible(event.asked, event.answered)

    def _must_receive_in(self, home: int, listener: Listener, event: Event) -> bool:
        if self._follows_homes(listener):
            facts = self.homes[home], self.members[listener.key.whose, home]
            stand = all(fact.surely_is(True, event.asked, event.answered) for fact in facts)
            return stand and _is_wanted(listener, event)
        if not self._stands(self.homes[home], True, listener, event):
            return False
        if listener.filter.kind is Kind.HOMES:
            access = self.access(listener, Permission(Kind.HOMES, home), home)
            return home in listener.filter.ids and self._stands(access, True, listener, event)
        return self._none_moved(listener, event) and any(
            self._stands(thing.place, home, listener, event)
            and self._stands(thing.exists, True, listener, event)
            and self._stands(self.access(listener, thing.access, home), True, listener, event)
            for thing in self.things(listener)
            if thing.is_subject(event)
        )

    def _none_moved(self, listener: Listener, event: Event) -> bool:
        """Whether surely nothing has closed the listener with 4004, after which nothing is promised."""
        changes = [change for thing in self.things(listener) for change in thing.place.changes]
        moved = any(
            change.asked <= event.answered and change.answered >= listener.asked for change in changes
        )
        return not moved

    def _may_receive_in(self, home: int, listener: Listener, event: Event) -> bool:
        if self._follows_homes(listener):
            facts = self.homes[home], self.members[listener.key.whose, home]
            may = all(fact.may_be(True, *_window(listener, event)) for fact in facts)
            return may and _is_wanted(listener, event)
        if not self._may_stand(self.homes[home], True, listener, event):
            return False
        if listener.filter.kind is Kind.HOMES:
            access = self.access(listener, Permission(Kind.HOMES, home), home)
            return home in listener.filter.ids and self._may_stand(access, True, listener, event)
        return any(
            self._may_stand(thing.place, home, listener, event)
            and self._may_stand(thing.exists, True, listener, event)
            and self._may_stand(self.access(listener, thing.access, home), True, listener, event)
            for thing in self.things(listener)
            if thing.is_subject(event)
        )

    def _follows_homes(self, listener: Listener) -> bool:
        return listener.filter.follows and not self.by_permission

    def _stands(self, fact: Fact[Value], value: Value, listener: Listener, event: Event) -> bool:
        """Whether the listener got what depends on this when it connected, and surely kept it."""
        since, until = listener.answered, event.answered
        kept = not fact.may_be_lost(value, listener.asked, until)
        return kept and fact.surely_is(value, since, until)

    def _may_stand(self, fact: Fact[Value], value: Value, listener: Listener, event: Event) -> bool:
        return (
            fact.may_be(value, *_window(listener, event))
            # With a key or membership that has just ended one may still get in, to be closed at once.
            and (fact.may_be(value, listener.asked, listener.answered) or event.asked < listener.asked)
            and not fact.surely_lost(value, listener.answered, event.asked)
        )


def _is_wanted(listener: Listener, event: Event) -> bool:
    """For a connection to all homes of a user: whether its filter matches."""
    return listener.filter.kind is Kind.ALL or event.entity in listener.filter.entities


def _is_command_for(listener: Listener, event: Event) -> bool:
    return listener.filter.kind is Kind.COMMANDS and event.command and event.device == listener.key.whose


def _window(listener: Listener, event: Event) -> tuple[float, float]:
    """When the permission counts. A listener that came behind the event may still find it on its way."""
    return event.asked, max(event.answered, listener.answered)
