"""Subscriptions: the filter of a handshake, and what a user receives by it (spec 000, *Listen to events*)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec
from multidict import MultiMapping

from homewire._core import Topic
from homewire.auth.actions import RULES, Action
from homewire.auth.cache import BYPASS
from homewire.auth.home_directory import HomeDirectory
from homewire.auth.models import Principal
from homewire.errors import InvalidInput, NotFound, PermissionDenied
from homewire.permissions.store import of_ids
from homewire.projects.models import AccessControl
from homewire.server.requests import LARGEST_ID

MAX_VALUES: Final = 1_000
"""The most values of one filter."""
MAX_TOPICS: Final = 1_000
"""The most topics of one connection: its homes, the values of its filter, or homes times entities."""
ID_DIGITS: Final = 19

FILTERS: Final = {
    "entityId": Action.RECEIVE_ENTITY,
    "deviceId": Action.RECEIVE_DEVICE,
    "homeId": Action.RECEIVE_HOME,
}
"""The query parameters that select events, and the action on each value.

In the order of precedence: the first one that a request has is in effect. The others are not read. Without
any of them the user receives all homes, and follows its memberships.
"""


class ListenQuery(msgspec.Struct, kw_only=True, rename="camel"):
    """Selects events. Only one of the parameters is used: entityId before deviceId before homeId."""

    home_id: list[int] | msgspec.UnsetType = msgspec.UNSET
    device_id: list[int] | msgspec.UnsetType = msgspec.UNSET
    entity_id: list[str] | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a connection receives, as the core takes it (`rust/py/src/subscription.rs`)."""

    topics: tuple[Topic, ...]
    follows_homes: bool = False
    """Whether the topics change with the memberships of the user."""
    followed_entities: tuple[str, ...] = ()
    """What the user receives in homes that it joins: the events of these entities. Empty: all events."""
    deactivated_homes: tuple[int, ...] = ()
    """Deactivated homes of the user. Their events are delivered once they are active again."""


@dataclass(frozen=True, slots=True)
class Filter:
    """The filter in effect: each value once, in the order of the request."""

    parameter: str = ""
    """A key of FILTERS; empty: there is no filter."""
    ids: tuple[int, ...] = ()
    entities: tuple[str, ...] = ()

    @classmethod
    def of(cls, query: MultiMapping[str]) -> Filter:
        """The filter of a query. Raises InvalidInput that names the parameter."""
        parameter = next((name for name in FILTERS if name in query), "")
        if not parameter:
            return cls()
        values = query.getall(parameter)
        if parameter == "entityId":
            return cls(parameter, entities=_names(parameter, values))
        # Ids may also be lists with commas.
        return cls(parameter, _ids(parameter, [each for value in values for each in value.split(",")]))

    @property
    def values(self) -> Collection[int] | Collection[str]:
        """The ids, or the names of entities."""
        return self.ids or self.entities


@dataclass(frozen=True, slots=True)
class SubscriptionLookup:
    """Finds the subscription of one user, with records of a total of cache versions (`VersionedCache.get`).

    Each method raises NotFound unless the user has access to all values of the filter. The answer is the
    same, byte for byte, for a value without access and for one that does not exist.
    """

    directory: HomeDirectory
    user: Principal
    at_version: int

    async def find(self, wanted: Filter, access: AccessControl) -> Subscription:
        """The subscription. Raises also PermissionDenied if a filter is required and missing, InvalidInput
        for too many topics."""
        try:
            return await self._by(access, wanted)
        except NotFound:
            # The caches have no missing records. But the home of a device and the homes of a user, which
            # decide on entities, may be cached and outdated: the store decides.
            if wanted.parameter not in ("deviceId", "entityId") or self.at_version == BYPASS:
                raise
            return await SubscriptionLookup(self.directory, self.user, BYPASS)._by(access, wanted)

    async def _by(self, access: AccessControl, wanted: Filter) -> Subscription:
        if access is AccessControl.PERMISSION:
            return await self._by_permissions(wanted)
        return await self._by_memberships(wanted)

    async def _by_memberships(self, wanted: Filter) -> Subscription:
        match wanted.parameter:
            case "homeId":
                await self._require_members(wanted.ids, wanted)
                await self._require_active(wanted.ids, wanted)
                return Subscription(_home_topics(wanted.ids))
            case "deviceId":
                homes = await self._homes_of_devices(wanted)
                await self._require_members(set(homes), wanted)
                return Subscription(_device_topics(wanted.ids, homes))
        homes = await self.directory.homes_of_user(self.user.project_id, self.user.id, self.at_version)
        if wanted.parameter == "entityId":
            return await self._entities_of_member(wanted, homes)
        if len(homes) > MAX_TOPICS:
            raise InvalidInput("homeId", f"you are in more than {MAX_TOPICS} homes: choose some with homeId")
        active, deactivated = await self._split_by_active(homes)
        return Subscription(_home_topics(active), follows_homes=True, deactivated_homes=deactivated)

    async def _entities_of_member(self, wanted: Filter, homes: tuple[int, ...]) -> Subscription:
        """Entities in their own homes, if all are bound to active homes of the user; else in all homes.

        An entity that is not registered may be named by events of each home. Raises NotFound for an entity
        that is bound to a home of which the user is not a member: no event of another home names it.
        """
        entities = wanted.entities
        bound = await self.directory.entity_homes(self.user.project_id, entities)
        bound_homes = set(bound.values())
        if not bound_homes.issubset(homes):
            raise _not_visible(wanted)
        active, deactivated = await self._split_by_active(homes)
        if len(bound) == len(entities) and bound_homes.issubset(active):
            homes = active = tuple(sorted(bound_homes))
            deactivated = ()
        if len(homes) * len(entities) > MAX_TOPICS:
            raise InvalidInput("entityId", f"your homes times these entities are more than {MAX_TOPICS}")
        return Subscription(
            tuple([Topic.Entity(entity, home) for home in active for entity in entities]),
            follows_homes=True,
            followed_entities=entities,
            deactivated_homes=deactivated,
        )

    async def _by_permissions(self, wanted: Filter) -> Subscription:
        """Memberships have no effect, and the subscription does not follow them."""
        if not wanted.parameter:
            raise PermissionDenied(
                problem="name what you have a read permission for by homeId, deviceId or entityId"
            )
        await self._require_permissions(wanted)
        match wanted.parameter:
            case "homeId":
                await self._require_active(wanted.ids, wanted)
                return Subscription(_home_topics(wanted.ids))
            case "deviceId":
                return Subscription(_device_topics(wanted.ids, await self._homes_of_devices(wanted)))
        bound = await self.directory.entity_homes(self.user.project_id, wanted.entities)
        if len(bound) != len(wanted.entities):
            raise _not_visible(wanted)
        await self._require_active(bound.values(), wanted)
        return Subscription(tuple([Topic.Entity(entity, bound[entity]) for entity in wanted.entities]))

    async def _require_permissions(self, wanted: Filter) -> None:
        """Each topic needs the permission of its action."""
        kind = RULES[FILTERS[wanted.parameter]].permission
        if kind is None:
            raise _not_visible(wanted)
        texts = set(of_ids(kind, wanted.values))
        user = self.user
        if await self.directory.permissions_of(user.project_id, user.id, texts, self.at_version) != texts:
            raise _not_visible(wanted)

    async def _require_members(self, homes: Collection[int], wanted: Filter) -> None:
        user = self.user
        member_of = await self.directory.member_of(user.project_id, user.id, homes, self.at_version)
        if len(member_of) != len(homes):
            raise _not_visible(wanted)

    async def _require_active(self, homes: Iterable[int], wanted: Filter) -> None:
        """Raises NotFound, as for an unknown home, if one of these homes is deactivated."""
        distinct = set(homes)
        if await self.directory.active_homes(self.user.project_id, distinct) != distinct:
            raise _not_visible(wanted)

    async def _homes_of_devices(self, wanted: Filter) -> tuple[int, ...]:
        """The home of each device. Raises NotFound unless all devices are in active homes."""
        located = await self.directory.locate(self.user.project_id, wanted.ids, self.at_version)
        locations = [located.get(device_id) for device_id in wanted.ids]
        # 0: in no home, or unknown.
        homes = tuple((location.home_id or 0) if location else 0 for location in locations)
        if 0 in homes:
            raise _not_visible(wanted)
        await self._require_active(homes, wanted)
        return homes

    async def _split_by_active(self, homes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Split homes into active and deactivated ones."""
        active = await self.directory.active_homes(self.user.project_id, homes)
        if len(active) == len(homes):
            return homes, ()
        return tuple(each for each in homes if each in active), tuple(
            each for each in homes if each not in active
        )


def _home_topics(homes: Iterable[int]) -> tuple[Topic, ...]:
    return tuple([Topic.Home(home) for home in homes])


def _device_topics(devices: Iterable[int], homes: Iterable[int]) -> tuple[Topic, ...]:
    return tuple([Topic.Device(device, home) for device, home in zip(devices, homes, strict=True)])


def _ids(parameter: str, texts: list[str]) -> tuple[int, ...]:
    ids = [_id(parameter, text) for text in texts[:MAX_VALUES]]
    _require_few(parameter, texts)
    return tuple(dict.fromkeys(ids))


def _id(parameter: str, text: str) -> int:
    # `int` alone would accept signs, blanks and digits of other scripts, and is slow for many digits.
    if text.isascii() and text.isdigit():
        digits = text.lstrip("0")
        if 0 < len(digits) <= ID_DIGITS and (number := int(digits)) <= LARGEST_ID:
            return number
    raise InvalidInput(parameter, "must be a positive integer of at most 63 bits")


def _names(parameter: str, names: list[str]) -> tuple[str, ...]:
    _require_few(parameter, names)
    if "" in names:
        raise InvalidInput(parameter, "must not be empty")
    return tuple(dict.fromkeys(names))


def _require_few(parameter: str, values: list[str]) -> None:
    if len(values) > MAX_VALUES:
        raise InvalidInput(parameter, f"must have at most {MAX_VALUES} values")


def _not_visible(wanted: Filter) -> NotFound:
    return NotFound(field=wanted.parameter, problem="unknown, or not yours to see")
