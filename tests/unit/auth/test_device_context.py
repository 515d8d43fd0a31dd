"""The cached context of a device: what an event needs of device and home, and when it is read again."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import pytest

from homewire.auth.access import DEACTIVATED, NOT_IN_HOME, Authorisation
from homewire.auth.home_directory import HomeDirectory
from homewire.auth.models import DeviceContext, Principal, PrincipalKind
from homewire.clock import MACHINE_CLOCK
from homewire.devices.models import DeviceLocation
from homewire.errors import InvalidInput, NotFound
from kit.shard_counts import ShardCounts, cache_versions, two_of_different_shards

HOME, DEVICE = two_of_different_shards()
OTHER_HOME = 77
CALLER = Principal(PrincipalKind.DEVICE, 1, DEVICE, 0)


class Stored:
    """One device and its home in the store."""

    def __init__(self) -> None:
        self.devices = self.homes = self
        self.clock = MACHINE_CLOCK
        self.location: DeviceLocation | None = DeviceLocation(HOME, "lamp")
        self.inactive: set[int] = set()
        self.reads = 0

    async def locate(self, _project: int, devices: Collection[int]) -> dict[int, DeviceLocation]:
        self.reads += 1
        return {each: self.location for each in devices if self.location is not None}

    async def active(self, _project: int, homes: Collection[int]) -> set[int]:
        self.reads += 1
        return set(homes) - self.inactive

    async def existing(self, _project: int, homes: Collection[int]) -> set[int]:
        return set(homes)


class Node:
    """A node that has just accepted an event of the device."""

    def __init__(self) -> None:
        self.stored = Stored()
        self.counts = ShardCounts()
        self.authorisation = Authorisation(
            HomeDirectory(cast(Any, self.stored), cache_versions(self.counts), 1000)
        )

    async def source(self) -> DeviceContext:
        return await self.authorisation.event_source(CALLER, DEVICE)


async def test_second_event_reads_nothing() -> None:
    node = Node()
    assert await node.source() == DeviceContext(DEVICE, HOME, "lamp")
    reads = node.stored.reads
    assert await node.source() == DeviceContext(DEVICE, HOME, "lamp")
    assert node.stored.reads == reads


async def test_record_in_the_shard_of_the_device_moves_its_events() -> None:
    node = Node()
    await node.source()
    node.stored.location = DeviceLocation(OTHER_HOME, "lamp")
    node.counts.count_record(DEVICE)
    assert (await node.source()).home_id == OTHER_HOME


async def test_record_in_the_shard_of_the_home_ends_events_of_its_devices() -> None:
    node = Node()
    await node.source()
    node.stored.inactive = {HOME}
    node.counts.count_record(HOME)
    with pytest.raises(InvalidInput) as refused:
        await node.source()
    assert refused.value.reason == DEACTIVATED


async def test_refusal_is_read_from_the_store_each_time() -> None:
    """No record says that a device is in a home again: a change by another node counts at once."""
    node = Node()
    node.stored.location = DeviceLocation(None, "lamp")
    with pytest.raises(InvalidInput) as refused:
        await node.source()
    assert refused.value.reason == NOT_IN_HOME
    node.stored.location = DeviceLocation(HOME, "lamp")
    assert (await node.source()).home_id == HOME
    node.stored.location = None
    node.counts.count_record(DEVICE)
    with pytest.raises(NotFound):
        await node.source()


async def test_device_that_was_moved_out_of_a_deactivated_home_is_not_refused_by_its_old_place() -> None:
    """The record of the move, by another node, was not read yet."""
    node = Node()
    node.stored.inactive = {HOME}
    with pytest.raises(InvalidInput):
        await node.source()
    node.stored.location = DeviceLocation(OTHER_HOME, "lamp")
    assert (await node.source()).home_id == OTHER_HOME


async def test_another_device_is_unknown() -> None:
    with pytest.raises(NotFound):
        await Node().authorisation.event_source(CALLER, DEVICE + 1)
