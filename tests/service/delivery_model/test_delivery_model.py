"""The model that `test_delivery.py` believes."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from delivery_closing import allowed, due, may_accept, must_accept
from delivery_judge import Judge
from delivery_model import Code, Event, Fact, Filter, Key, Kind, Listener, Permission, Truth
from delivery_permission_plan import permission_plan
from delivery_plan import plan

USER, HOME, OTHER, DEVICE = 1, 7, 8, 3
FIRST = Key(False, USER, 0)


@pytest.fixture
def truth() -> Truth:
    """The user is a member of both homes, the device is in the first."""
    truth = Truth()
    truth.members[USER, HOME] = Fact(True)
    truth.members[USER, OTHER] = Fact(True)
    truth.places[DEVICE] = Fact(HOME)
    return truth


def listener(kind: Kind, *ids: int, asked: float = 10, answered: float = 11) -> Listener:
    entities = ("lamp",) if kind is Kind.ENTITIES else ()
    return Listener(0, 0, FIRST, Filter(kind, ids, entities), asked, answered)


def event(asked: float, answered: float, home: int = HOME) -> Event:
    return Event(1, asked, answered, True, home, entity="lamp")


def device_event(asked: float, answered: float) -> Event:
    return Event(1, asked, answered, True, device=DEVICE, entity="lamp")


EVERYONE = [
    listener(Kind.ALL),
    listener(Kind.HOMES, HOME),
    listener(Kind.DEVICES, DEVICE),
    listener(Kind.ENTITIES),
]


def test_fact_between_asking_and_answer_may_be_either() -> None:
    fact = Fact(False)
    fact.become(True, 2, 4)
    assert fact.possible(0, 1) == {False}
    assert fact.possible(1, 3) == fact.possible(3, 3) == {False, True}
    assert fact.possible(4.5, 9) == {True}
    fact.become(False, 6, 7)
    assert fact.surely_is(True, 4.5, 5.9)
    assert not fact.surely_is(True, 4.5, 6)
    assert fact.surely_lost(True, 6, 7)
    assert not fact.surely_lost(True, 6.5, 8)
    assert fact.may_be_lost(True, 6.5, 6.6)
    assert not fact.may_be_lost(True, 7.1, 8)


@pytest.mark.parametrize("someone", EVERYONE, ids=lambda each: each.filter.kind.value)
class TestEveryFilter:
    def test_event_after_handshake_must_be_received(self, truth: Truth, someone: Listener) -> None:
        assert truth.must_receive(someone, device_event(11.5, 12))
        assert not truth.must_receive(someone, device_event(10.5, 12))
        assert truth.may_receive(someone, device_event(10.5, 12))
        assert truth.may_receive(someone, device_event(8, 9))

    def test_removal_divides_required_from_forbidden_deliveries(
        self, truth: Truth, someone: Listener
    ) -> None:
        truth.members[USER, HOME].become(False, 20, 21)
        assert truth.must_receive(someone, device_event(18, 19))
        assert not truth.must_receive(someone, device_event(19, 20.5))
        assert truth.may_receive(someone, device_event(19, 20.5))
        assert truth.may_receive(someone, device_event(20.5, 22))
        assert not truth.may_receive(someone, device_event(21.5, 22))

    def test_member_that_returns_receives_again_if_following(self, truth: Truth, someone: Listener) -> None:
        truth.members[USER, HOME].become(False, 20, 21)
        truth.members[USER, HOME].become(True, 30, 31)
        follows = someone.filter.follows
        assert truth.must_receive(someone, device_event(32, 33)) == follows
        assert truth.may_receive(someone, device_event(32, 33)) == follows
        assert not truth.must_receive(someone, device_event(30.5, 33))
        assert not truth.may_receive(someone, device_event(25, 26))

    def test_change_before_it_came_is_none_of_its_business(self, truth: Truth, someone: Listener) -> None:
        truth.members[USER, HOME].become(False, 1, 2)
        truth.members[USER, HOME].become(True, 3, 4)
        assert must_accept(truth, someone)
        assert truth.must_receive(someone, device_event(12, 13))
        assert due(truth, someone) == inf
        # But its node may have yet to read of it, and no longer know what to believe.
        doubted = set() if someone.filter.follows else {Code.MOVED}
        assert allowed(truth, replace(someone, closed=12)) == doubted

    def test_ended_key_receives_nothing_more_and_is_closed(self, truth: Truth, someone: Listener) -> None:
        truth.keys[FIRST].become(False, 20, 21)
        assert truth.must_receive(someone, device_event(18, 19))
        assert not truth.may_receive(someone, device_event(22, 23))
        assert due(truth, someone) == 21
        assert allowed(truth, replace(someone, closed=22)) == {Code.KEY_ENDED}
        late = replace(someone, asked=30, answered=31)
        assert not must_accept(truth, late)
        # By a node that has not read the record yet; it closes at once.
        assert may_accept(truth, late)
        assert due(truth, late) == 31
        assert not truth.may_receive(late, device_event(32, 33))

    def test_disabled_project_is_over_for_good(self, truth: Truth, someone: Listener) -> None:
        truth.project.become(False, 20, 21)
        truth.project.become(True, 22, 23)
        assert not truth.may_receive(someone, device_event(24, 25))
        assert allowed(truth, replace(someone, closed=24)) == {Code.PROJECT_ENDED}
        after = replace(someone, asked=24, answered=25)
        assert must_accept(truth, after)
        assert due(truth, after) == inf
        assert allowed(truth, replace(after, closed=26)) == {Code.MOVED}
        assert truth.must_receive(after, device_event(26, 27))

    def test_deleted_home_is_silent(self, truth: Truth, someone: Listener) -> None:
        truth.homes[HOME].become(False, 20, 21)
        assert not truth.may_receive(someone, device_event(22, 23))
        assert (due(truth, someone) == inf) == someone.filter.follows

    def test_another_home_is_nothing_to_a_filter(self, truth: Truth, someone: Listener) -> None:
        received = someone.filter.follows
        assert truth.must_receive(someone, event(12, 13, OTHER)) == received
        assert truth.may_receive(someone, event(12, 13, OTHER)) == received
        truth.members[USER, OTHER].become(False, 20, 21)
        assert due(truth, someone) == inf


def test_homes_end_with_the_last_of_them(truth: Truth) -> None:
    someone = listener(Kind.HOMES, HOME, OTHER)
    truth.members[USER, HOME].become(False, 20, 21)
    assert due(truth, someone) == inf
    truth.homes[OTHER].become(False, 30, 31)
    assert due(truth, someone) == 31
    assert allowed(truth, replace(someone, closed=25)) == set()
    assert allowed(truth, replace(someone, closed=32)) == {Code.ACCESS_ENDED}


def test_home_that_is_made_later_is_followed(truth: Truth) -> None:
    truth.homes[9], someone = Fact(False), listener(Kind.ALL)
    truth.homes[9].become(True, 20, 21)
    truth.members[USER, 9].become(True, 20, 21)
    assert truth.must_receive(someone, event(22, 23, 9))
    assert truth.may_receive(someone, event(20.5, 23, 9))
    assert not truth.must_receive(someone, event(20.5, 23, 9))


def test_moved_device_ends_its_listeners_and_nothing_is_promised_after() -> None:
    truth = Truth()
    truth.members[USER, HOME] = truth.members[USER, OTHER] = Fact(True)
    truth.places[DEVICE], truth.places[DEVICE + 1] = Fact(HOME), Fact(OTHER)
    someone = listener(Kind.DEVICES, DEVICE, DEVICE + 1)
    truth.places[DEVICE].become(OTHER, 20, 21)
    assert due(truth, someone) == 21
    assert allowed(truth, replace(someone, closed=22)) == {Code.MOVED}
    assert not truth.may_receive(someone, device_event(22, 23))
    still = replace(device_event(22, 23), device=DEVICE + 1)
    assert truth.may_receive(someone, still)
    assert not truth.must_receive(someone, still)
    assert truth.must_receive(someone, replace(still, asked=18, answered=19))
    assert truth.must_receive(listener(Kind.ALL), device_event(22, 23))


def test_device_in_uncertain_home_promises_no_delivery(truth: Truth) -> None:
    truth.places[DEVICE].become(OTHER, 9, 12)
    someone = listener(Kind.DEVICES, DEVICE)
    assert not truth.must_receive(someone, device_event(13, 14))
    assert truth.may_receive(someone, device_event(13, 14))
    assert due(truth, someone) == inf
    assert allowed(truth, replace(someone, closed=13)) == {Code.MOVED}
    assert not must_accept(truth, someone)
    assert may_accept(truth, someone)
    truth.members[USER, HOME] = truth.members[USER, OTHER] = Fact(False)
    assert not may_accept(truth, someone)


def test_device_that_left_its_listeners_home_obliges_them_to_nothing(truth: Truth) -> None:
    truth.members[USER, HOME].become(False, 20, 21)
    truth.places[DEVICE].become(OTHER, 30, 31)
    someone = listener(Kind.DEVICES, DEVICE)
    assert due(truth, someone) == 21
    assert allowed(truth, replace(someone, closed=22)) == {Code.ACCESS_ENDED}


def test_event_in_a_home_that_may_have_changed(truth: Truth) -> None:
    truth.places[DEVICE].become(OTHER, 20, 22)
    truth.members[USER, OTHER] = Fact(False)
    someone = listener(Kind.ALL)
    assert truth.must_receive(someone, device_event(18, 19))
    assert not truth.must_receive(someone, device_event(21, 21.5))
    assert truth.may_receive(someone, device_event(21, 21.5))
    assert not truth.may_receive(someone, device_event(23, 24))


def test_commands_are_for_the_sockets_of_their_device(truth: Truth) -> None:
    key = Key(True, DEVICE, 0)
    socket = Listener(0, 0, key, Filter(Kind.COMMANDS), 10, 11)
    command = Event(1, 12, 13, True, device=DEVICE, command=True)
    assert truth.must_receive(socket, command)
    assert not truth.may_receive(socket, replace(command, device=DEVICE + 1))
    assert not truth.may_receive(socket, device_event(12, 13))
    assert not truth.may_receive(listener(Kind.ALL), command)
    truth.keys[key].become(False, 20, 21)
    assert allowed(truth, replace(socket, closed=22)) == {Code.KEY_ENDED}
    assert not truth.may_receive(socket, replace(command, asked=22, answered=23))
    truth.devices[DEVICE].become(False, 30, 31)
    assert not truth.must_take(replace(command, asked=32, answered=33))


def test_event_must_be_accepted_by_state_of_its_home(truth: Truth) -> None:
    sent = replace(device_event(12, 13), key=Key(True, DEVICE, 0))
    assert truth.must_take(sent)
    truth.places[DEVICE].become(-1, 20, 21)
    assert not truth.must_take(replace(sent, asked=20.5, answered=20.6))
    assert truth.must_take(event(22, 23))
    truth.homes[HOME].become(False, 30, 31)
    assert not truth.must_take(event(29, 32))


def complaints(truth: Truth, someone: Listener, *events: Event, now: float = 100) -> list[str]:
    return Judge(truth, [someone], {each.number: each for each in events}, {}, now).complaints()


def test_judge_finds_each_kind_of_fault(truth: Truth) -> None:
    first, second = event(12, 13), replace(event(14, 15), number=2)

    def received(*numbers: int) -> list[tuple[int, int, float]]:
        return [(number, HOME, 16.0) for number in numbers]

    assert complaints(truth, replace(listener(Kind.ALL), received=received(1, 2)), first, second) == []
    for wrong, word in (
        (received(1), "did not receive"),
        (received(1, 2, 2), "received event 2 2 times"),
        (received(2, 1), "received event 1 behind 2"),
        (received(1, 2, 3), "no event of its project"),
        ([(1, HOME, 16.0), (2, OTHER, 16.0)], "as of home"),
    ):
        found = complaints(truth, replace(listener(Kind.ALL), received=wrong), first, second)
        assert any(word in complaint for complaint in found), (word, found)
    truth.members[USER, HOME].become(False, 13.2, 13.8)
    [_, complaint] = complaints(truth, replace(listener(Kind.ALL), received=received(1, 2)), first, second)
    assert "must not receive" in complaint
    someone = replace(listener(Kind.HOMES, HOME), received=received(1))
    [_, complaint] = complaints(truth, someone, first)
    assert "was not closed" in complaint
    [_, complaint] = complaints(truth, replace(someone, code=4500, closed=25), first)
    assert "s after the change" in complaint
    [_, complaint] = complaints(truth, replace(someone, code=4502, closed=14), first)
    assert "was closed with 4502; expected [4500]" in complaint
    assert complaints(truth, replace(someone, code=4500, closed=14), first) == []


def test_plan_comes_from_its_seed_alone() -> None:
    for made in (plan, permission_plan):
        assert str(made(5)) == str(made(5)) != str(made(6))


class TestPermissions:
    """Where permissions decide what is received."""

    @pytest.fixture
    def truth(self) -> Truth:
        """Device and entity are in the first home; the user, no member, has permissions for all three."""
        truth = Truth(by_permission=True)
        truth.places[DEVICE] = truth.bindings["lamp"] = Fact(HOME)
        for kind, what in ((Kind.HOMES, HOME), (Kind.DEVICES, DEVICE), (Kind.ENTITIES, "lamp")):
            truth.permissions[USER, Permission(kind, what)] = Fact(True)
        return truth

    @pytest.mark.parametrize("someone", EVERYONE[1:], ids=lambda each: each.filter.kind.value)
    def test_end_of_permission_divides_required_from_forbidden_deliveries(
        self, truth: Truth, someone: Listener
    ) -> None:
        assert must_accept(truth, someone)
        for (_, permission), fact in list(truth.permissions.items()):
            if permission.kind is someone.filter.kind:
                fact.become(False, 20, 21)
                fact.become(True, 30, 31)
        assert truth.must_receive(someone, device_event(18, 19))
        assert truth.may_receive(someone, device_event(20.5, 22))
        assert not truth.may_receive(someone, device_event(21.5, 22))
        # Nobody follows here: it has to come again.
        assert not truth.may_receive(someone, device_event(32, 33))
        assert due(truth, someone) == 21
        assert allowed(truth, replace(someone, closed=22)) == {Code.ACCESS_ENDED}

    def test_memberships_play_no_part(self, truth: Truth) -> None:
        truth.members[USER, HOME] = truth.members[USER, OTHER] = Fact(True)
        assert not may_accept(truth, listener(Kind.ALL))
        assert not may_accept(truth, listener(Kind.HOMES, OTHER))
        truth.members[USER, HOME].become(False, 20, 21)
        assert truth.must_receive(listener(Kind.HOMES, HOME), event(22, 23))

    def test_entity_events_are_received_in_bound_home(self, truth: Truth) -> None:
        someone = listener(Kind.ENTITIES)
        assert truth.must_receive(someone, event(12, 13))
        assert not truth.may_receive(someone, event(12, 13, OTHER))
        assert truth.must_take(event(12, 13))
        assert not truth.must_take(event(12, 13, OTHER))
        truth.bindings["lamp"].become(-1, 20, 21)
        assert truth.must_take(event(22, 23, OTHER))
        assert due(truth, someone) == 21
        assert allowed(truth, replace(someone, closed=22)) == {Code.MOVED}
        assert not truth.may_receive(someone, event(22, 23))
        assert not may_accept(truth, replace(someone, asked=30, answered=31))
