"""What a node holds, and what it has to say of it."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from homewire.presence.connected import ConnectedDevices, DeviceKey, ProjectChanges
from homewire.presence.store import MAX_CHANGES
from kit.manual_clock import ManualClock

PROJECT = 7


def changes_of(batches: list[ProjectChanges]) -> list[tuple[int, bool]]:
    return [(change.device_id, change.connected) for _, changes in batches for change in changes]


def opened(connected_devices: ConnectedDevices, connection_id: int, project_id: int, device_id: int) -> None:
    connected_devices.reserved(connection_id, project_id, device_id)
    connected_devices.adopted(connection_id)


def test_device_with_overlapping_sockets_stays_connected() -> None:
    connected_devices = ConnectedDevices()
    opened(connected_devices, 1, PROJECT, 10)
    assert changes_of(connected_devices.take(9)) == [(10, True)]
    connected_devices.reserved(2, PROJECT, 10)
    connected_devices.closed(1)
    assert connected_devices.take(9) == []
    connected_devices.adopted(2)
    assert connected_devices.take(9) == []
    connected_devices.reserved(3, PROJECT, 10)
    connected_devices.closed(2)
    connected_devices.closed(3)
    assert changes_of(connected_devices.take(9)) == [(10, False)]
    assert len(connected_devices) == 0


def test_handshake_alone_announces_no_presence() -> None:
    connected_devices = ConnectedDevices()
    connected_devices.reserved(1, PROJECT, 10)
    assert (len(connected_devices), connected_devices.device_of(1)) == (0, (PROJECT, 10))
    connected_devices.publish_again()
    connected_devices.closed(1)
    assert connected_devices.take(9) == []
    assert not connected_devices.pending.is_set()


def test_first_and_last_socket_announce_presence() -> None:
    connected_devices = ConnectedDevices(ManualClock(5))
    opened(connected_devices, 1, PROJECT, 10)
    opened(connected_devices, 2, PROJECT, 10)
    assert connected_devices.pending.is_set()
    assert changes_of(connected_devices.take(9)) == [(10, True)]
    assert not connected_devices.pending.is_set()
    connected_devices.closed(1)
    connected_devices.closed(1)
    connected_devices.closed(99)
    assert connected_devices.take(9) == []
    assert connected_devices.device_of(2) == (PROJECT, 10)
    connected_devices.closed(2)
    [(project, [change])] = connected_devices.take(9)
    assert (project, change.device_id, change.connected, change.generation, change.time_ms) == (
        PROJECT,
        10,
        False,
        2,
        5,
    )
    assert connected_devices.device_of(2) is None
    assert len(connected_devices) == 0


def test_device_writes_one_change_at_a_time_and_skips_intermediate_ones() -> None:
    connected_devices = ConnectedDevices()
    opened(connected_devices, 1, PROJECT, 10)
    connected_devices.closed(1)
    assert changes_of(connected_devices.take(9)) == [(10, True)]
    assert changes_of(connected_devices.take(9)) == [(10, False)]
    for connection in range(2, 9):
        opened(connected_devices, connection, PROJECT, 10)
        connected_devices.closed(connection)
    opened(connected_devices, 9, PROJECT, 10)
    assert changes_of(connected_devices.take(9)) == [(10, True)]
    assert connected_devices.take(9) == []


def test_batches_are_of_one_project_and_one_kind_and_bounded() -> None:
    connected_devices = ConnectedDevices()
    for number in range(MAX_CHANGES + 1):
        opened(connected_devices, number, PROJECT, number)
    opened(connected_devices, 1000, PROJECT + 1, 1)
    assert [len(changes) for _, changes in connected_devices.take(2)] == [MAX_CHANGES, 1]
    connected_devices.closed(3)
    opened(connected_devices, 1001, PROJECT, 2000)
    # Who waited while the other had its turn comes first.
    assert [(project, len(changes)) for project, changes in connected_devices.take(9)] == [
        (PROJECT + 1, 1),
        (PROJECT, 1),
        (PROJECT, 1),
    ]
    assert connected_devices.waiting() == 0


def test_failed_change_is_written_before_later_ones() -> None:
    connected_devices = ConnectedDevices()
    opened(connected_devices, 1, PROJECT, 10)
    batches = connected_devices.take(9)
    connected_devices.closed(1)
    connected_devices.put_back(batches)
    assert changes_of(connected_devices.take(1)) == [(10, True)]
    assert changes_of(connected_devices.take(1)) == [(10, False)]


def test_dead_node_announces_all_devices_again() -> None:
    connected_devices = ConnectedDevices()
    for number in range(3):
        opened(connected_devices, number, PROJECT, number)
    connected_devices.take(9)
    connected_devices.closed(1)
    connected_devices.publish_again()
    assert sorted(changes_of(connected_devices.take(9))) == [(0, True), (1, False), (2, True)]


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
def test_record_agrees_with_connected_devices_in_the_end(steps: list[tuple[str, int, int]]) -> None:
    """Whatever happens between the rounds, and whichever of them fail; and no word is older than the last."""
    connected_devices, record, last = ConnectedDevices(), set[DeviceKey](), defaultdict[DeviceKey, int](int)
    sockets, handshakes = dict[int, DeviceKey](), dict[int, DeviceKey]()
    number = 0

    def write(batches: list[ProjectChanges]) -> None:
        for project, changes in batches:
            for change in changes:
                device = project, change.device_id
                assert change.generation > last[device]
                last[device] = change.generation
                (record.add if change.connected else record.discard)(device)

    for step, choice, device_id in steps:
        if step == "reserve":
            number += 1
            handshakes[number] = PROJECT, device_id
            connected_devices.reserved(number, PROJECT, device_id)
        elif step == "adopt" and handshakes:
            connection = list(handshakes)[choice % len(handshakes)]
            sockets[connection] = handshakes.pop(connection)
            connected_devices.adopted(connection)
        elif step == "close" and (known := sockets | handshakes):
            connection = list(known)[choice % len(known)]
            sockets.pop(connection, None)
            handshakes.pop(connection, None)
            connected_devices.closed(connection)
        elif step == "take":
            write(connected_devices.take(1))
        elif step == "fail":
            connected_devices.put_back(connected_devices.take(1))
        elif step == "anew":
            record.clear()
            connected_devices.publish_again()
    for connection in handshakes:
        connected_devices.closed(connection)
    while connected_devices.waiting():
        assert connected_devices.pending.is_set()
        write(connected_devices.take(2))
    assert record == set(sockets.values())
    assert len(connected_devices) == len(record)
