"""Subscriptions of users: which filter is in effect, and what the store says at the version asked for.

A change is announced in several shards, and a node reads them one after the other. Between two of them the
cache's own shard says that nothing changed, while the total of all shards says that something did. A
handshake asks for the total, so it must not be answered from memory then.
"""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest
from yarl import URL

from homewire._core import Topic
from homewire.auth.access import Authorisation
from homewire.auth.cache import CacheVersions
from homewire.auth.home_directory import HomeDirectory
from homewire.auth.models import Principal, PrincipalKind
from homewire.auth.subscription import FILTERS, MAX_VALUES, Filter, ListenQuery, Subscription
from homewire.clock import MACHINE_CLOCK
from homewire.devices.models import DeviceLocation
from homewire.errors import InvalidInput, NotFound, PermissionDenied
from homewire.permissions.models import PermissionKind
from homewire.projects.models import AccessControl, AccountSystem
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

    def __init__(self, access: AccessControl) -> None:
        self.homes = self.permissions = self.devices = self.entities = self.projects = self
        self.project = SimpleNamespace(accounts=AccountSystem.EMAIL, access_control=access)
        self.clock = MACHINE_CLOCK
        self.is_member = True
        self.permitted = True
        self.wanted: set[str] = set()
        self.device_home: int = HOME

    async def get(self, _project: int) -> SimpleNamespace:
        return self.project

    async def followed_by(self, _project: int, _user: int) -> list[int]:
        return [HOME] if self.is_member else []

    async def member_of(self, _project: int, _user: int, homes: Collection[int]) -> set[int]:
        return {HOME}.intersection(homes) if self.is_member else set()

    async def held(self, _project: int, _user: int, wanted: Collection[str]) -> set[str]:
        self.wanted = set(wanted)
        return set(wanted) if self.permitted else set()

    async def active(self, _project: int, homes: Collection[int]) -> set[int]:
        return set(homes)

    async def locate(self, _project: int, devices: Collection[int]) -> dict[int, DeviceLocation]:
        return {each: DeviceLocation(self.device_home, "lamp") for each in devices}

    async def bindings(self, _project: int, entities: Collection[str]) -> dict[str, int]:
        return dict.fromkeys(entities, HOME)


def filter_of(query: str) -> Filter:
    return Filter.of(URL(f"http://localhost/{query}").query)


class Handshakes:
    """Handshakes of one user at a node that has just answered one, and reads another shard's record next."""

    def __init__(self, access: AccessControl, query: str) -> None:
        self.stored = StoredAccess(access)
        self.counts = ShardCounts()
        self.versions: CacheVersions = cache_versions(self.counts)
        self.authorisation = Authorisation(HomeDirectory(cast(Any, self.stored), self.versions, 1000))
        self.filter = filter_of(query)

    async def subscription(self) -> Subscription:
        """As of now."""
        return await self.authorisation.subscription(USER, self.filter, self.versions.total())

    def read_record_elsewhere(self) -> None:
        """The tail reads a record, and not yet its copies in the shards of the subjects."""
        self.counts.count_record(ELSEWHERE)


TOPICS = {
    f"?homeId={HOME}": Topic.Home(HOME),
    f"?deviceId={DEVICE}": Topic.Device(DEVICE, HOME),
    f"?entityId={ENTITY}": Topic.Entity(ENTITY, HOME),
}
PERMISSIONS = {
    f"?homeId={HOME}": f"{PermissionKind.READ_HOME_EVENTS}:{HOME}",
    f"?deviceId={DEVICE}": f"{PermissionKind.READ_DEVICE}:{DEVICE}",
    f"?entityId={ENTITY}": f"{PermissionKind.READ_ENTITY_EVENTS}:{ENTITY}",
}
"""What each topic needs in a project with access by permission."""
QUERIES = list(TOPICS)
MALFORMED = [
    "",
    ",",
    "1,",
    ",1",
    "x",
    "-1",
    "%2B1",
    "1%20",
    "%201",
    "1.0",
    "0",
    "9223372036854775808",
    "%D9%A3",
]


@pytest.mark.parametrize("query", QUERIES)
async def test_subscription_by_membership_ends_with_it_before_the_users_shard_is_read(query: str) -> None:
    handshakes = Handshakes(AccessControl.MEMBERSHIP, query)
    assert (await handshakes.subscription()).topics == (TOPICS[query],)
    handshakes.stored.is_member = False
    handshakes.read_record_elsewhere()
    with pytest.raises(NotFound):
        await handshakes.subscription()


async def test_subscription_to_all_homes_follows_the_store_before_the_users_shard_is_read() -> None:
    handshakes = Handshakes(AccessControl.MEMBERSHIP, "")
    assert await handshakes.subscription() == Subscription((Topic.Home(HOME),), follows_homes=True)
    handshakes.stored.is_member = False
    handshakes.read_record_elsewhere()
    assert await handshakes.subscription() == Subscription((), follows_homes=True)


@pytest.mark.parametrize("query", QUERIES)
async def test_subscription_by_permission_ends_with_it_before_the_users_shard_is_read(query: str) -> None:
    handshakes = Handshakes(AccessControl.PERMISSION, query)
    assert await handshakes.subscription() == Subscription((TOPICS[query],))
    assert handshakes.stored.wanted == {PERMISSIONS[query]}
    handshakes.stored.permitted = False
    handshakes.read_record_elsewhere()
    with pytest.raises(NotFound):
        await handshakes.subscription()


async def test_subscription_to_a_device_has_its_new_home_before_the_devices_shard_is_read() -> None:
    handshakes = Handshakes(AccessControl.PERMISSION, f"?deviceId={DEVICE}")
    assert (await handshakes.subscription()).topics == (Topic.Device(DEVICE, HOME),)
    handshakes.stored.device_home = MOVED_TO
    handshakes.read_record_elsewhere()
    assert (await handshakes.subscription()).topics == (Topic.Device(DEVICE, MOVED_TO),)


async def test_member_subscription_to_a_moved_device_is_refused_before_the_devices_shard_is_read() -> None:
    handshakes = Handshakes(AccessControl.MEMBERSHIP, f"?deviceId={DEVICE}")
    assert (await handshakes.subscription()).topics == (Topic.Device(DEVICE, HOME),)
    handshakes.stored.device_home = MOVED_TO
    handshakes.read_record_elsewhere()
    with pytest.raises(NotFound):
        await handshakes.subscription()


async def test_subscription_without_a_filter_needs_access_by_membership() -> None:
    with pytest.raises(PermissionDenied):
        await Handshakes(AccessControl.PERMISSION, "").subscription()


async def test_subscription_in_byou_project_is_refused() -> None:
    handshakes = Handshakes(AccessControl.MEMBERSHIP, "")
    handshakes.stored.project.accounts = AccountSystem.BYOU
    with pytest.raises(PermissionDenied) as refused:
        await handshakes.subscription()
    assert "BYOU" in refused.value.data["problem"]


async def test_entity_by_membership_is_followed_into_other_homes() -> None:
    found = await Handshakes(AccessControl.MEMBERSHIP, f"?entityId={ENTITY}").subscription()
    assert found == Subscription(
        (Topic.Entity(ENTITY, HOME),), follows_homes=True, followed_entities=(ENTITY,)
    )


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", Filter()),
        ("?homeId=1", Filter("homeId", (1,))),
        ("?deviceId=3", Filter("deviceId", (3,))),
        ("?homeId=1&deviceId=3", Filter("deviceId", (3,))),
        ("?entityId=a,b", Filter("entityId", entities=("a,b",))),
        ("?homeId=1&entityId=e", Filter("entityId", entities=("e",))),
        ("?entityId=e&deviceId=3", Filter("entityId", entities=("e",))),
        ("?homeId=1&deviceId=3&entityId=e", Filter("entityId", entities=("e",))),
        ("?homeId=3,1&homeId=2&homeId=1,3,4", Filter("homeId", (3, 1, 2, 4))),
        ("?entityId=b&entityId=a&entityId=b", Filter("entityId", entities=("b", "a"))),
        ("?homeId=0007&homeId=9223372036854775807", Filter("homeId", (7, 2**63 - 1))),
    ],
)
def test_first_filter_of_the_table_is_in_effect(query: str, expected: Filter) -> None:
    assert filter_of(query) == expected


def test_parameters_of_the_document_are_the_filters() -> None:
    assert set(ListenQuery.__struct_encode_fields__) == set(FILTERS)


@pytest.mark.parametrize("bad", [*MALFORMED, ",".join(["1"] * (MAX_VALUES + 1))])
def test_invalid_value_is_refused_only_in_the_filter_in_effect(bad: str) -> None:
    for name in ("homeId", "deviceId"):
        with pytest.raises(InvalidInput) as refused:
            filter_of(f"?{name}=1&{name}={bad}")
        assert refused.value.data["field"] == name
    assert filter_of(f"?homeId={bad}&deviceId=3") == Filter("deviceId", (3,))
    assert filter_of(f"?homeId={bad}&deviceId={bad}&entityId=e") == Filter("entityId", entities=("e",))


def test_invalid_entity_is_refused_beside_a_valid_device() -> None:
    with pytest.raises(InvalidInput) as refused:
        filter_of("?homeId=1&deviceId=1&entityId=e&entityId=")
    assert refused.value.data["field"] == "entityId"


def test_filter_has_at_most_a_thousand_values() -> None:
    ids = list(range(1, MAX_VALUES + 1))
    joined = ",".join(map(str, ids))
    assert filter_of(f"?homeId={joined}").ids == tuple(ids)
    named = "&".join(f"entityId={number}" for number in ids)
    assert len(filter_of(f"?{named}").entities) == MAX_VALUES
    # Counted before duplicates are removed.
    for query in (f"?homeId={joined}&homeId=1", f"?deviceId={joined},1", f"?{named}&entityId=1"):
        with pytest.raises(InvalidInput) as refused:
            filter_of(query)
        assert refused.value.data["problem"] == "must have at most 1000 values"
