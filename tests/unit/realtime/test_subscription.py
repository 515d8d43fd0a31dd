"""A subscription agrees with the store as of the version that it is asked for, at each of its look-ups.

A change is announced in several shards, and a node reads them one after the other. Between two of them the
cache's own shard says that nothing changed, while the total of all shards says that something did. A
handshake asks for the total, so it must not be answered from memory then.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

import pytest
from aiohttp.test_utils import make_mocked_request

from homewire.auth.cache import CacheVersions
from homewire.auth.home_directory import HomeDirectory
from homewire.auth.models import Principal, PrincipalKind
from homewire.clock import MACHINE_CLOCK
from homewire.devices.models import DeviceLocation
from homewire.errors import NotFound
from homewire.projects.models import AccessControl
from homewire.realtime.subscription import Filter, Subscription
from kit.shard_counts import SHARDS, ShardCounts, cache_versions, shard_of

HOME, DEVICE, ENTITY = 1, 2, "kitchen"
USER = Principal(PrincipalKind.USER, 1, 3, 0)
MOVED_TO = 9
ELSEWHERE = next(
    each
    for each in range(10, 10 + 100 * SHARDS)
    if shard_of(each) not in map(shard_of, (HOME, DEVICE, USER.id))
)
"""An id in a shard of none of the subjects: its record moves the total only."""


class StoredAccess:
    """What the store holds of one user, one home, one device and one entity, as plain values."""

    def __init__(self) -> None:
        self.homes = self.permissions = self.devices = self.entities = self
        self.clock = MACHINE_CLOCK
        self.is_member = True
        self.permitted = True
        self.device_home: int = HOME

    async def followed_by(self, _project: int, _user: int) -> list[int]:
        return [HOME] if self.is_member else []

    async def member_of(self, _project: int, _user: int, homes: Collection[int]) -> set[int]:
        return {HOME}.intersection(homes) if self.is_member else set()

    async def held(self, _project: int, _user: int, wanted: Collection[str]) -> set[str]:
        return set(wanted) if self.permitted else set()

    async def active(self, _project: int, homes: Collection[int]) -> set[int]:
        return set(homes)

    async def locate(self, _project: int, devices: Collection[int]) -> dict[int, DeviceLocation]:
        return {each: DeviceLocation(self.device_home, "lamp") for each in devices}

    async def bindings(self, _project: int, entities: Collection[str]) -> dict[str, int]:
        return dict.fromkeys(entities, HOME)


class Handshakes:
    """Handshakes of one user at a node that has just answered one, and reads another shard's record next."""

    def __init__(self, access: AccessControl, query: str) -> None:
        self.stored = StoredAccess()
        self.counts = ShardCounts()
        self.versions: CacheVersions = cache_versions(self.counts)
        self.directory = HomeDirectory(cast(Any, self.stored), self.versions, 1000)
        self.access = access
        self.query = query

    async def subscription(self) -> Subscription:
        """As of now."""
        request = make_mocked_request("GET", f"/userSession/websocket{self.query}")
        return await Filter(request).subscription(USER, self.access, self.directory, self.versions.total())

    def read_record_elsewhere(self) -> None:
        """The tail reads a record, and not yet its copies in the shards of the subjects."""
        self.counts.count_record(ELSEWHERE)


QUERIES = [f"?homeId={HOME}", f"?deviceId={DEVICE}", f"?entityId={ENTITY}"]


@pytest.mark.parametrize("query", QUERIES)
async def test_subscription_by_membership_ends_with_it_before_the_users_shard_is_read(query: str) -> None:
    handshakes = Handshakes(AccessControl.MEMBERSHIP, query)
    assert (await handshakes.subscription()).kind in ("homes", "devices", "entities")
    handshakes.stored.is_member = False
    handshakes.read_record_elsewhere()
    with pytest.raises(NotFound):
        await handshakes.subscription()


async def test_subscription_to_all_homes_follows_the_store_before_the_users_shard_is_read() -> None:
    handshakes = Handshakes(AccessControl.MEMBERSHIP, "")
    assert (await handshakes.subscription()).ids == (HOME,)
    handshakes.stored.is_member = False
    handshakes.read_record_elsewhere()
    assert (await handshakes.subscription()).ids == ()


@pytest.mark.parametrize("query", QUERIES)
async def test_subscription_by_permission_ends_with_it_before_the_users_shard_is_read(query: str) -> None:
    handshakes = Handshakes(AccessControl.PERMISSION, query)
    assert (await handshakes.subscription()).kind in ("homes", "devices", "bound")
    handshakes.stored.permitted = False
    handshakes.read_record_elsewhere()
    with pytest.raises(NotFound):
        await handshakes.subscription()


async def test_subscription_to_a_device_has_its_new_home_before_the_devices_shard_is_read() -> None:
    handshakes = Handshakes(AccessControl.PERMISSION, f"?deviceId={DEVICE}")
    assert (await handshakes.subscription()).homes == (HOME,)
    handshakes.stored.device_home = MOVED_TO
    handshakes.read_record_elsewhere()
    assert (await handshakes.subscription()).homes == (MOVED_TO,)


async def test_member_subscription_to_a_moved_device_is_refused_before_the_devices_shard_is_read() -> None:
    handshakes = Handshakes(AccessControl.MEMBERSHIP, f"?deviceId={DEVICE}")
    assert (await handshakes.subscription()).homes == (HOME,)
    handshakes.stored.device_home = MOVED_TO
    handshakes.read_record_elsewhere()
    with pytest.raises(NotFound):
        await handshakes.subscription()
