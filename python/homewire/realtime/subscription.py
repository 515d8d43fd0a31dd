"""Subscriptions: the filter of a request, and its authorisation (spec 000, *Listen to events*)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from aiohttp import web

from homewire._core import InvalidField, select_filter
from homewire.auth.actions import RULES, Action, require_key
from homewire.auth.cache import BYPASS
from homewire.auth.home_directory import HomeDirectory
from homewire.auth.models import Principal
from homewire.errors import InvalidInput, NotFound, PermissionDenied
from homewire.permissions.store import of_ids
from homewire.projects.models import AccessControl, AccountSystem
from homewire.server.requests import require_utf8_query

MAX_TOPICS: Final = 1_000
"""The most topics of one connection: its homes, the values of its filter, or homes times entities."""

_ACTIONS: Final = {
    "homes": ("homeId", Action.RECEIVE_HOME),
    "devices": ("deviceId", Action.RECEIVE_DEVICE),
    "entities": ("entityId", Action.RECEIVE_ENTITY),
}
"""By kind of filter: its query parameter, and the action on each value."""

Kind: TypeAlias = Literal["homes", "devices", "entities", "bound", "command"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription for the core: home ids, device ids, all entities in all homes (`entities`), or each
    entity in its own home (`bound`)."""

    kind: Kind
    ids: tuple[int, ...]
    entities: tuple[str, ...] = ()
    homes: tuple[int, ...] = ()
    """If `ids` are devices, the home of each."""
    follow: bool = False
    """Whether the subscription changes with the memberships of the user."""
    waiting: tuple[int, ...] = ()
    """Deactivated homes of the user. Their events are delivered once they are active again."""


class Filter:
    """The filter of a request, from which the subscription of a principal is made."""

    __slots__ = ("entities", "ids", "kind")

    def __init__(self, request: web.Request) -> None:
        """Apply precedence, then check the syntax. Raises InvalidInput that names the parameter."""
        require_utf8_query(request)
        query = request.query
        try:
            self.kind, self.ids, self.entities = select_filter(
                query.getall("homeId", []), query.getall("deviceId", []), query.getall("entityId", [])
            )
        except InvalidField as error:
            raise InvalidInput(error.field, error.problem) from error

    async def subscription(
        self, principal: Principal, access: AccessControl, directory: HomeDirectory, at_version: int
    ) -> Subscription:
        """The subscription of this user, with records of a total of cache versions (`VersionedCache.get`).

        Raises NotFound unless the user has access to all values of the filter. The answer is the same, byte
        for byte, for a value without access and for one that does not exist. Raises PermissionDenied if a
        filter is required and missing, InvalidInput for too many topics.
        """
        by_access = self._of_member if access is AccessControl.MEMBERSHIP else self._permitted
        try:
            return await by_access(principal, directory, at_version)
        except NotFound:
            # The caches have no missing records. But the home of a device and the homes of a user, which
            # decide on entities, may be cached and outdated: the store decides.
            if self.kind not in ("devices", "entities") or at_version == BYPASS:
                raise
            return await by_access(principal, directory, BYPASS)

    async def _of_member(
        self, principal: Principal, directory: HomeDirectory, at_version: int
    ) -> Subscription:
        if self.kind == "homes":
            return await self._named_homes(principal, directory, at_version)
        if self.kind == "devices":
            return await self._named_devices(principal, directory, at_version)
        homes = await directory.homes_of_user(principal.project_id, principal.id, at_version)
        if self.kind == "all":
            if len(homes) > MAX_TOPICS:
                raise InvalidInput(
                    "homeId", f"you are in more than {MAX_TOPICS} homes: choose some with homeId"
                )
            active, waiting = await _split_by_active(principal, directory, homes)
            return Subscription("homes", active, follow=True, waiting=waiting)
        return await self._named_entities(principal, directory, homes)

    async def _named_entities(
        self, principal: Principal, directory: HomeDirectory, homes: tuple[int, ...]
    ) -> Subscription:
        """Entities in their own homes, if all are bound to active homes of the user; else in all homes.

        An entity that is not registered may be named by events of each home. Raises NotFound for an entity
        that is bound to a home of which the user is not a member: no event of another home names it.
        """
        bound = await directory.entity_homes(principal.project_id, self.entities)
        bound_homes = set(bound.values())
        if not bound_homes.issubset(homes):
            raise _not_visible("entityId")
        active, waiting = await _split_by_active(principal, directory, homes)
        if len(bound) == len(self.entities) and bound_homes.issubset(active):
            homes = active = tuple(sorted(bound_homes))
            waiting = ()
        if len(homes) * len(self.entities) > MAX_TOPICS:
            raise InvalidInput("entityId", f"your homes times these entities are more than {MAX_TOPICS}")
        return Subscription("entities", active, tuple(self.entities), follow=True, waiting=waiting)

    async def _named_homes(
        self, principal: Principal, directory: HomeDirectory, at_version: int
    ) -> Subscription:
        visible = await directory.member_of(principal.project_id, principal.id, self.ids, at_version)
        if len(visible) != len(self.ids):
            raise _not_visible("homeId")
        await _require_active(principal, directory, self.ids, "homeId")
        return Subscription("homes", tuple(self.ids))

    async def _named_devices(
        self, principal: Principal, directory: HomeDirectory, at_version: int
    ) -> Subscription:
        homes = await self._homes_of_devices(principal, directory, at_version)
        wanted = set(homes)
        if await directory.member_of(principal.project_id, principal.id, wanted, at_version) != wanted:
            raise _not_visible("deviceId")
        return Subscription("devices", tuple(self.ids), homes=homes)

    async def _permitted(
        self, principal: Principal, directory: HomeDirectory, at_version: int
    ) -> Subscription:
        """The subscription by permissions. Memberships have no effect, and the subscription does not follow
        them."""
        if self.kind == "all":
            raise PermissionDenied(
                problem="name what you have a read permission for by homeId, deviceId or entityId"
            )
        name, action = _ACTIONS[self.kind]
        kind = RULES[action].permission
        if kind is None:
            raise _not_visible(name)
        wanted = set(of_ids(kind, self.entities or self.ids))
        if await directory.permissions_of(principal.project_id, principal.id, wanted, at_version) != wanted:
            raise _not_visible(name)
        match self.kind:
            case "homes":
                await _require_active(principal, directory, self.ids, name)
                return Subscription("homes", tuple(self.ids))
            case "devices":
                homes = await self._homes_of_devices(principal, directory, at_version)
                return Subscription("devices", tuple(self.ids), homes=homes)
        bound = await directory.entity_homes(principal.project_id, self.entities)
        if len(bound) != len(set(self.entities)):
            raise _not_visible(name)
        homes = tuple(bound[entity] for entity in self.entities)
        await _require_active(principal, directory, homes, name)
        return Subscription("bound", homes, tuple(self.entities))

    async def _homes_of_devices(
        self, principal: Principal, directory: HomeDirectory, at_version: int
    ) -> tuple[int, ...]:
        """The home of each device. Raises NotFound unless all devices are in active homes."""
        located = await directory.locate(principal.project_id, self.ids, at_version)
        locations = [located.get(device_id) for device_id in self.ids]
        # 0: in no home, or unknown.
        homes = tuple((location.home_id or 0) if location else 0 for location in locations)
        if 0 in homes:
            raise _not_visible("deviceId")
        await _require_active(principal, directory, homes, "deviceId")
        return homes


async def check_listener(principal: Principal, directory: HomeDirectory) -> AccessControl:
    """The access control of the principal's project. Raises PermissionDenied for a key that may not listen,
    whatever the filter."""
    require_key(principal, Action.RECEIVE_HOME)
    project = await directory.project(principal.project_id)
    if project is None or project.accounts is AccountSystem.BYOU:
        raise PermissionDenied(problem="not allowed in BYOU projects")
    return project.access_control


def check_own_device(principal: Principal, device_id: str) -> Subscription:
    """The subscription of a device's command socket. Raises PermissionDenied for a key that is not of a
    device, NotFound for any other id than that of the device."""
    require_key(principal, Action.RECEIVE_COMMANDS)
    if str(principal.id) != device_id:
        raise NotFound
    return Subscription("command", (principal.id,))


async def _split_by_active(
    principal: Principal, directory: HomeDirectory, homes: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Split homes into active and deactivated ones."""
    active = await directory.active_homes(principal.project_id, homes)
    if len(active) == len(homes):
        return homes, ()
    return tuple(each for each in homes if each in active), tuple(
        each for each in homes if each not in active
    )


async def _require_active(
    principal: Principal, directory: HomeDirectory, homes: Iterable[int], field: str
) -> None:
    """Raises NotFound, as for an unknown home, if one of these homes is deactivated."""
    wanted = set(homes)
    if await directory.active_homes(principal.project_id, wanted) != wanted:
        raise _not_visible(field)


def _not_visible(field: str) -> NotFound:
    return NotFound(field=field, problem="unknown, or not yours to see")
