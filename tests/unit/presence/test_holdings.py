"""What a node holds, and what it has to say of it."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from homewire.presence.connected import Batch, Device, Holdings
from homewire.presence.store import MOST_WORDS

PROJECT = 7


def said(batches: list[Batch]) -> list[tuple[int, bool]]:
    return [(word.device_id, word.holds) for _, words in batches for word in words]


def opened(holdings: Holdings, connection_id: int, project_id: int, device_id: int) -> None:
    holdings.reserved(connection_id, project_id, device_id)
    holdings.adopted(connection_id)


def test_a_device_that_opens_its_next_socket_before_it_closes_the_last_never_went() -> None:
    holdings = Holdings()
    opened(holdings, 1, PROJECT, 10)
    assert said(holdings.take(9)) == [(10, True)]
    holdings.reserved(2, PROJECT, 10)
    holdings.closed(1)
    assert holdings.take(9) == []
    holdings.adopted(2)
    assert holdings.take(9) == []
    holdings.reserved(3, PROJECT, 10)
    holdings.closed(2)
    holdings.closed(3)
    assert said(holdings.take(9)) == [(10, False)]
    assert len(holdings) == 0


def test_a_handshake_alone_is_nothing_to_tell() -> None:
    holdings = Holdings()
    holdings.reserved(1, PROJECT, 10)
    assert (len(holdings), holdings.device_of(1)) == (0, (PROJECT, 10))
    holdings.say_again()
    holdings.closed(1)
    assert holdings.take(9) == []
    assert not holdings.to_say.is_set()


def test_the_first_socket_and_the_last_are_told() -> None:
    holdings = Holdings(lambda: 5)
    opened(holdings, 1, PROJECT, 10)
    opened(holdings, 2, PROJECT, 10)
    assert holdings.to_say.is_set()
    assert said(holdings.take(9)) == [(10, True)]
    assert not holdings.to_say.is_set()
    holdings.closed(1)
    holdings.closed(1)
    holdings.closed(99)
    assert holdings.take(9) == []
    assert holdings.device_of(2) == (PROJECT, 10)
    holdings.closed(2)
    [(project, [word])] = holdings.take(9)
    assert (project, word.device_id, word.holds, word.generation, word.time_ms) == (PROJECT, 10, False, 2, 5)
    assert holdings.device_of(2) is None
    assert len(holdings) == 0


def test_a_device_says_one_thing_at_a_time_and_forgets_what_came_between() -> None:
    holdings = Holdings()
    opened(holdings, 1, PROJECT, 10)
    holdings.closed(1)
    assert said(holdings.take(9)) == [(10, True)]
    assert said(holdings.take(9)) == [(10, False)]
    for connection in range(2, 9):
        opened(holdings, connection, PROJECT, 10)
        holdings.closed(connection)
    opened(holdings, 9, PROJECT, 10)
    assert said(holdings.take(9)) == [(10, True)]
    assert holdings.take(9) == []


def test_batches_are_of_one_project_and_one_kind_and_bounded() -> None:
    holdings = Holdings()
    for number in range(MOST_WORDS + 1):
        opened(holdings, number, PROJECT, number)
    opened(holdings, 1000, PROJECT + 1, 1)
    assert [len(words) for _, words in holdings.take(2)] == [MOST_WORDS, 1]
    holdings.closed(3)
    opened(holdings, 1001, PROJECT, 2000)
    # Who waited while the other had its turn comes first.
    assert [(project, len(words)) for project, words in holdings.take(9)] == [
        (PROJECT + 1, 1),
        (PROJECT, 1),
        (PROJECT, 1),
    ]
    assert holdings.waiting() == 0


def test_what_could_not_be_said_comes_before_what_came_since() -> None:
    holdings = Holdings()
    opened(holdings, 1, PROJECT, 10)
    batches = holdings.take(9)
    holdings.closed(1)
    holdings.put_back(batches)
    assert said(holdings.take(1)) == [(10, True)]
    assert said(holdings.take(1)) == [(10, False)]


def test_a_dead_node_says_everything_again() -> None:
    holdings = Holdings()
    for number in range(3):
        opened(holdings, number, PROJECT, number)
    holdings.take(9)
    holdings.closed(1)
    holdings.say_again()
    assert sorted(said(holdings.take(9))) == [(0, True), (1, False), (2, True)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reserve", "adopt", "close", "take", "fail", "anew"]),
            st.integers(0, 5),
            st.integers(0, 2),
        ),
        max_size=60,
    )
)
def test_in_the_end_the_record_says_what_is_held(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens between the rounds, and whichever of them fail; and no word is older than the last."""
    holdings, record, last = Holdings(), set[Device](), defaultdict[Device, int](int)
    sockets, handshakes = dict[int, Device](), dict[int, Device]()
    number = 0

    def write(batches: list[Batch]) -> None:
        for project, words in batches:
            for word in words:
                device = project, word.device_id
                assert word.generation > last[device]
                last[device] = word.generation
                (record.add if word.holds else record.discard)(device)

    for step, choice, device_id in steps:
        if step == "reserve":
            number += 1
            handshakes[number] = PROJECT, device_id
            holdings.reserved(number, PROJECT, device_id)
        elif step == "adopt" and handshakes:
            connection = list(handshakes)[choice % len(handshakes)]
            sockets[connection] = handshakes.pop(connection)
            holdings.adopted(connection)
        elif step == "close" and (known := sockets | handshakes):
            connection = list(known)[choice % len(known)]
            sockets.pop(connection, None)
            handshakes.pop(connection, None)
            holdings.closed(connection)
        elif step == "take":
            write(holdings.take(1))
        elif step == "fail":
            holdings.put_back(holdings.take(1))
        elif step == "anew":
            record.clear()
            holdings.say_again()
    for connection in handshakes:
        holdings.closed(connection)
    while holdings.waiting():
        assert holdings.to_say.is_set()
        write(holdings.take(2))
    assert record == set(sockets.values())
    assert len(holdings) == len(record)
