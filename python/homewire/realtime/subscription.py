"""What a WebSocket asks for, and whether it may have it (spec 000, *Listen to events*)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from aiohttp import web

from homewire._core import InvalidField, select_filter
from homewire.auth.cache import BYPASS
from homewire.auth.home_directory import HomeDirectory
from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import InvalidInput, NotFound, PermissionDenied
from homewire.permissions.models import PermissionKind
from homewire.permissions.store import of_ids
from homewire.projects.models import AccessControl, AccountSystem
from homewire.server.requests import require_utf8_query

MAX_TOPICS: Final = 1_000
"""Followed homes, filter values, and homes times entities of one connection."""

_RIGHTS: Final = {
    "homes": ("homeId", PermissionKind.READ_HOME_EVENTS),
    "devices": ("deviceId", PermissionKind.READ_DEVICE),
    "entities": ("entityId", PermissionKind.READ_ENTITY_EVENTS),
}
"""By the kind of a filter the parameter that it is from, and the right that each of its values needs."""

Kind: TypeAlias = Literal["homes", "devices", "entities", "bound", "command"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What the core is told: home ids, device ids, entities within homes, or each in its own (`bound`)."""

    kind: Kind
    ids: tuple[int, ...]
    entities: tuple[str, ...] = ()
    homes: tuple[int, ...] = ()
    """For each of `ids`, if they are devices, the home that it is in."""
    follow: bool = False
    """Whether homes that the user enters or leaves change the subscription."""
    waiting: tuple[int, ...] = ()
    """Homes of the user that are deactivated: they are followed, too."""


class Filter:
    """The filter of a request, and the subscription that it gives a principal."""

    __slots__ = ("entities", "ids", "kind")

    def __init__(self, request: web.Request) -> None:
        """Precedence first, then syntax. Raises InvalidInput naming the parameter."""
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
        """What this user hears by this filter, as of a total of the marks (`VersionedCache.get`).

        Raises NotFound unless the user may hear everything that is named: what they may not gets the same
        answer, byte for byte, as what does not exist. Raises PermissionDenied where a filter is needed and
        missing, InvalidInput where it would be too much.
        """
        by_access = self._of_member if access is AccessControl.MEMBERSHIP else self._permitted
        try:
            return await by_access(principal, directory, at_version)
        except NotFound:
            # Nothing that is missing is remembered, but the place that a device has left is, and the whole
            # list of a user's homes, which entities are held against.
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
                raise InvalidInput("homeId", f"you are in more than {MAX_TOPICS} homes: name those to hear")
            active, waiting = await _parted(principal, directory, homes)
            return Subscription("homes", active, follow=True, waiting=waiting)
        return await self._named_entities(principal, directory, homes)

    async def _named_entities(
        self, principal: Principal, directory: HomeDirectory, homes: tuple[int, ...]
    ) -> Subscription:
        """In the homes that they are bound to, if all are bound to active homes of the user; else in every
        home.

        One that is not registered is legal in every home's events, so it can be delivered. One that is
        bound to a home where the user is no member cannot: no event names it in another home. NotFound.
        """
        bound = await directory.entity_homes(principal.project_id, self.entities)
        where = set(bound.values())
        if not where.issubset(homes):
            raise _not_visible("entityId")
        active, waiting = await _parted(principal, directory, homes)
        if len(bound) == len(self.entities) and where.issubset(active):
            homes = active = tuple(sorted(where))
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
        homes = await self._places(principal, directory, at_version)
        wanted = set(homes)
        if await directory.member_of(principal.project_id, principal.id, wanted, at_version) != wanted:
            raise _not_visible("deviceId")
        return Subscription("devices", tuple(self.ids), homes=homes)

    async def _permitted(
        self, principal: Principal, directory: HomeDirectory, at_version: int
    ) -> Subscription:
        """By the rights to what is named. Memberships play no part: nobody hears by them, and nothing is
        followed."""
        if self.kind == "all":
            raise PermissionDenied(
                problem="name what you have a read permission for by homeId, deviceId or entityId"
            )
        name, kind = _RIGHTS[self.kind]
        wanted = set(of_ids(kind, self.entities or self.ids))
        if await directory.rights_of(principal.project_id, principal.id, wanted, at_version) != wanted:
            raise _not_visible(name)
        match self.kind:
            case "homes":
                await _require_active(principal, directory, self.ids, name)
                return Subscription("homes", tuple(self.ids))
            case "devices":
                places = await self._places(principal, directory, at_version)
                return Subscription("devices", tuple(self.ids), homes=places)
        bound = await directory.entity_homes(principal.project_id, self.entities)
        if len(bound) != len(set(self.entities)):
            raise _not_visible(name)
        homes = tuple(bound[entity] for entity in self.entities)
        await _require_active(principal, directory, homes, name)
        return Subscription("bound", homes, tuple(self.entities))

    async def _places(
        self, principal: Principal, directory: HomeDirectory, at_version: int
    ) -> tuple[int, ...]:
        """The home of each device. Raises NotFound unless all of them are in one that is active."""
        located = await directory.locate(principal.project_id, self.ids, at_version)
        places = [located.get(device_id) for device_id in self.ids]
        # 0: in no home, or unknown.
        homes = tuple((place.home_id or 0) if place else 0 for place in places)
        if 0 in homes:
            raise _not_visible("deviceId")
        await _require_active(principal, directory, homes, "deviceId")
        return homes


async def check_listener(principal: Principal, directory: HomeDirectory) -> AccessControl:
    """Who may hear what in the project of a listener. Raises PermissionDenied for keys that may never
    listen, whatever the filter."""
    if principal.kind is not PrincipalKind.USER:
        raise PermissionDenied(needs="a user's key")
    project = await directory.project(principal.project_id)
    if project is None or project.accounts is AccountSystem.BYOU:
        raise PermissionDenied(problem="not allowed in BYOU projects")
    return project.access_control


def check_own_device(principal: Principal, device_id: str) -> Subscription:
    """What a device's command socket hears. Raises PermissionDenied for a key that is no device's, NotFound
    for the id of another device, and for what is no device's id."""
    if principal.kind is not PrincipalKind.DEVICE:
        raise PermissionDenied(needs="the key of this device")
    if str(principal.id) != device_id:
        raise NotFound
    return Subscription("command", (principal.id,))


async def _parted(
    principal: Principal, directory: HomeDirectory, homes: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Those of these homes that are active, and those that are deactivated."""
    active = await directory.active_homes(principal.project_id, homes)
    if len(active) == len(homes):
        return homes, ()
    return tuple(each for each in homes if each in active), tuple(
        each for each in homes if each not in active
    )


async def _require_active(
    principal: Principal, directory: HomeDirectory, homes: Iterable[int], field: str
) -> None:
    """Raises NotFound as for what does not exist, if one of these homes is deactivated."""
    wanted = set(homes)
    if await directory.active_homes(principal.project_id, wanted) != wanted:
        raise _not_visible(field)


def _not_visible(field: str) -> NotFound:
    return NotFound(field=field, problem="unknown, or not yours to see")
