"""What is reserved agrees with what was looked up behind it, at whichever step it changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from homewire._core import Core, Topic
from homewire.auth.cache import BYPASS
from homewire.auth.models import Principal, PrincipalKind
from homewire.auth.subscription import Subscription
from homewire.errors import PermissionDenied, Unavailable
from homewire.limits.connections import ConnectionLimits
from homewire.presence.connected import ConnectedDevices
from homewire.realtime.handshake import Authorized, HandshakeContext, reserve
from homewire.sessions.deadlines import ActiveKeys, Deadlines
from homewire.sessions.expiry import SocketExpiry
from homewire.settings import Settings
from kit.shard_counts import ShardCounts, cache_versions

USER = Principal(PrincipalKind.USER, 1, 7, 0)


@pytest.fixture
def core() -> Iterator[Core]:
    """A core that reads from nowhere, and undoes no reservation by itself while a test runs."""
    core = Core(reservation_ms=600_000)
    yield core
    core.stop(1001, "", 0)


class Scene:
    """A user whose homes change at steps of the handshake, each change announced."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.counts = ShardCounts()
        self.homes: tuple[int, ...] | None = (1,)
        self.looked_up: list[int] = []
        self.steps: list[str] = []
        self.changes: dict[str, list[tuple[int, ...] | None]] = {}
        """What the homes become when a step is come to; None: the user may not listen any more."""

    async def authorize(self, at_version: int) -> Authorized:
        self.looked_up.append(at_version)
        if self.homes is None:
            raise PermissionDenied
        claim = USER, Subscription(tuple([Topic.Home(home) for home in self.homes]))
        # Behind the read of the store, and before anything is made of it.
        await self.observe("look up")
        return claim

    async def observe(self, step: str) -> None:
        self.steps.append(step)
        coming = self.changes.get(step)
        if coming:
            self.homes = coming.pop(0)
            self.counts.count_record(USER.id)

    async def reserve(self) -> None:
        connection_limits = ConnectionLimits(self.core, Settings())
        await reserve(
            self.core,
            cache_versions(self.counts),
            connection_limits,
            self.authorize,
            "127.0.0.1",
            self.observe,
        )

    def reservations(self) -> int:
        return self.steps.count("reserve")


async def test_reconnecting_device_stays_connected_in_any_order_of_events(core: Core) -> None:
    """The core's thread reads sockets before it takes what it is asked: it may tell of the end of a device's
    last socket before it comes to a reservation whose client had its 101, and closed that socket then."""
    connected_devices, unused, counts = ConnectedDevices(), cast(Any, None), ShardCounts()
    sockets = SocketExpiry(core, ActiveKeys(), unused, Deadlines())
    context = HandshakeContext(
        core, unused, unused, cache_versions(counts), unused, unused, unused, sockets, connected_devices
    )
    device = Principal(PrincipalKind.DEVICE, 1, 9, 0)

    async def authorize(_as_of: int) -> Authorized:
        return device, Subscription((Topic.Command(device.id),))

    async def reserved() -> int:
        connection_limits = ConnectionLimits(core, Settings())
        return (
            await reserve(
                core, cache_versions(counts), connection_limits, authorize, None, None, context.reserved
            )
        )[0]

    last = await reserved()
    connected_devices.adopted(last)
    assert [word.connected for _, words in connected_devices.take(1) for word in words] == [True]
    following = await reserved()
    # Nothing of the core's was taken in between.
    connected_devices.closed(last)
    assert connected_devices.take(1) == []
    connected_devices.adopted(following)
    assert connected_devices.take(1) == []
    connected_devices.closed(following)
    assert [word.connected for _, words in connected_devices.take(1) for word in words] == [False]


async def test_without_a_record_it_is_looked_up_once(core: Core) -> None:
    scene = Scene(core)
    scene.counts.count_record(3)
    await scene.reserve()
    assert scene.looked_up == [1]
    assert scene.steps == ["look up", "reserve", "authorise", "answer"]


@pytest.mark.parametrize("step", ["look up", "reserve", "authorise"])
async def test_change_at_each_step_is_reserved_anew(core: Core, step: str) -> None:
    scene = Scene(core)
    scene.changes = {step: [(1, 2)]}
    await scene.reserve()
    assert scene.looked_up == [0, BYPASS]
    assert scene.reservations() == 2
    assert scene.steps[-1] == "answer"


@pytest.mark.parametrize("step", ["look up", "reserve", "authorise"])
async def test_access_ended_at_each_step_is_refused_without_reservation(core: Core, step: str) -> None:
    scene = Scene(core)
    scene.changes = {step: [None]}
    with pytest.raises(PermissionDenied):
        await scene.reserve()
    assert "answer" not in scene.steps
    async with asyncio.timeout(10):
        while (metrics := core.stats())["reserved"] == 0 or metrics["reservations"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_records_about_others_close_no_reservation(core: Core) -> None:
    """A mark that moves with every step, and a subscription that stays."""
    scene = Scene(core)
    always: list[tuple[int, ...] | None] = [(1,)] * 100
    scene.changes = {step: list(always) for step in ("look up", "reserve", "authorise")}
    await scene.reserve()
    assert scene.reservations() == 1


async def test_change_in_a_later_round_is_seen_too(core: Core) -> None:
    scene = Scene(core)
    scene.changes = {"authorise": [(1, 2), (1, 2, 3), (1, 2, 3, 4), (5,)]}
    await scene.reserve()
    assert scene.homes == (5,)
    assert scene.reservations() == 5


async def test_change_during_the_second_authorize_is_seen_too(core: Core) -> None:
    scene = Scene(core)
    scene.changes = {"authorise": [(1, 2)], "look up": [(1,), (1, 2, 3)]}
    await scene.reserve()
    assert scene.homes == (1, 2, 3)
    assert scene.reservations() == 3


async def test_five_changes_in_a_row_are_503(core: Core) -> None:
    scene = Scene(core)
    scene.changes = {"authorise": [(1, number) for number in range(2, 20)]}
    with pytest.raises(Unavailable) as refused:
        await scene.reserve()
    assert refused.value.status == 503
    assert "Retry-After" in refused.value.headers
    assert scene.reservations() == 5
    assert "answer" not in scene.steps
