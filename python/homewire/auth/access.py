"""Authorisation of requests: visible homes and devices, permissions of users, deactivated homes, bound
entities. An invisible id is refused like an unknown one.

Bindings of entities are read from the store for each request, all entities of a body at once, so that a
binding holds from its answer on. Events without an entity cost nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from homewire._core import Topic
from homewire.auth.actions import RULES, Action, Noun, Reach, Rule
from homewire.auth.home_directory import HomeDirectory
from homewire.auth.models import DeviceContext, Principal
from homewire.auth.subscription import Filter, Subscription, SubscriptionLookup
from homewire.devices.models import DeviceLocation
from homewire.errors import InvalidInput, NotFound, PermissionDenied
from homewire.permissions.models import Permission, PermissionKind
from homewire.projects.models import AccessControl, AccountSystem

DEACTIVATED: Final = "HOME_DEACTIVATED"
NOT_IN_HOME: Final = "DEVICE_NOT_IN_HOME"


class Authorisation:
    """Answers whether a principal may act on a resource, by the table of actions (`auth/actions.py`).

    What the table needs and the principal does not say comes from the home directory. Every method may raise
    `errors.Unavailable`. Keys are checked before (`Keys.require`). Roles are checked by the scripts of homes,
    at the moment of the change. The actions RECEIVE_… of users concern many resources at once:
    `subscription` answers them.
    """

    __slots__ = ("directory",)

    def __init__(self, directory: HomeDirectory) -> None:
        self.directory: Final = directory

    async def may(self, caller: Principal, action: Action, resource: int) -> bool:
        """Whether the caller may do this: False where `require` raises NotFound or PermissionDenied."""
        try:
            await self.require(caller, action, resource)
        except (NotFound, PermissionDenied):
            return False
        return True

    async def require(self, caller: Principal, action: Action, resource: int) -> None:
        """Check that the caller may do this with the resource of this id.

        Raises NotFound for an unknown resource, and for one that the caller may not see; PermissionDenied for
        a member without the permission that the action needs; InvalidInput for a deactivated home, if the
        action needs an active one.
        """
        rule = RULES[action]
        reach = _reach(rule, caller, resource)
        project_id = caller.project_id
        match rule.noun:
            case Noun.HOME:
                await self._require_home(rule, reach, caller, resource)
            case Noun.DEVICE:
                await self._require_device(action, caller, resource)
            case Noun.USER:
                if reach is Reach.PROJECT and not await self.directory.user_exists(project_id, resource):
                    raise NotFound
            case Noun.PROJECT:
                if resource != project_id:
                    raise NotFound
            case Noun.ENTITY:
                raise ValueError(f"{action} is no action on a single resource")

    async def require_located(
        self, caller: Principal, action: Action, device_id: int, home_id: int | None
    ) -> None:
        """Like `require`, for a device that was found in this home, or (None) in no home."""
        rule = RULES[action]
        if _reach(rule, caller, device_id) is Reach.MEMBERSHIPS:
            if home_id is None:
                raise NotFound
            await self._require_member(rule, caller, home_id, device_id)
        if rule.active and home_id is not None:
            await self._require_active(caller.project_id, home_id)

    async def subscription(self, caller: Principal, wanted: Filter, at_version: int) -> Subscription:
        """What the user receives by this filter, with records of a total of cache versions
        (`VersionedCache.get`).

        Raises NotFound unless the user has access to all values of the filter, PermissionDenied if the
        project allows no such subscription, InvalidInput for too many topics.
        """
        project = await self.directory.project(caller.project_id)
        if project is None or project.accounts is AccountSystem.BYOU:
            raise PermissionDenied(problem="not allowed in BYOU projects")
        lookup = SubscriptionLookup(self.directory, caller, at_version)
        return await lookup.find(wanted, project.access_control)

    def commands(self, caller: Principal, device_id: int) -> Subscription:
        """The subscription of a device to its commands. Raises NotFound for the id of another device."""
        _reach(RULES[Action.RECEIVE_COMMANDS], caller, device_id)
        return Subscription((Topic.Command(device_id),))

    async def event_source(self, caller: Principal, device_id: int) -> DeviceContext:
        """The context of the device that sends an event.

        Raises NotFound for the id of another device, InvalidInput for a device without a home or in a
        deactivated one.
        """
        _reach(RULES[Action.SEND_DEVICE_EVENT], caller, device_id)
        context = await self.directory.device_context(caller.project_id, device_id)
        return context or await self._uncached_source(caller.project_id, device_id)

    async def _uncached_source(self, project_id: int, device_id: int) -> DeviceContext:
        """The same for a device without a context: why there is none. Refusals come from the store."""
        location = (await self.directory.locate_now(project_id, (device_id,))).get(device_id)
        if location is None:
            raise NotFound
        if location.home_id is None:
            raise InvalidInput(
                "deviceId", "the device is in no home: put it into one before it sends events", NOT_IN_HOME
            )
        await self._require_active(project_id, location.home_id)
        return DeviceContext(device_id, location.home_id, location.device_class)

    async def _require_home(self, rule: Rule, reach: Reach, caller: Principal, home_id: int) -> None:
        directory, project_id = self.directory, caller.project_id
        if reach is Reach.MEMBERSHIPS:
            await self._require_member(rule, caller, home_id, home_id)
        if rule.active:
            # One look-up: a home that is active exists.
            if home_id in await directory.active_homes(project_id, (home_id,)):
                return
            if home_id in await directory.existing_homes(project_id, (home_id,)):
                raise _is_deactivated(home_id)
            raise NotFound
        if reach is Reach.PROJECT and home_id not in await directory.existing_homes(project_id, (home_id,)):
            raise NotFound

    async def _require_device(self, action: Action, caller: Principal, device_id: int) -> None:
        try:
            located = await self.directory.locate(caller.project_id, (device_id,))
            await self._require_location(action, caller, device_id, located.get(device_id))
        except NotFound:
            # Another node may have moved the device a moment ago: the store decides.
            located = await self.directory.locate_now(caller.project_id, (device_id,))
            await self._require_location(action, caller, device_id, located.get(device_id))

    async def _require_location(
        self, action: Action, caller: Principal, device_id: int, location: DeviceLocation | None
    ) -> None:
        if location is None:
            raise NotFound
        await self.require_located(caller, action, device_id, location.home_id)

    async def _require_member(self, rule: Rule, caller: Principal, home_id: int, subject: int) -> None:
        """Check that the user is a member of the home, or has the permission for `subject` (the home, or a
        device in it) where permissions decide."""
        kind = rule.permission
        if kind is not None and await self._is_by_permission(caller.project_id):
            if await self._has_permission(caller, kind, subject):
                return
            await self._require_membership(caller, home_id)
            # The user sees the home, and may not change it.
            raise PermissionDenied(needs=f"the permission {Permission(kind, str(subject))}")
        await self._require_membership(caller, home_id)

    async def _require_membership(self, caller: Principal, home_id: int) -> None:
        if home_id not in await self.directory.member_of(caller.project_id, caller.id, (home_id,)):
            raise NotFound

    async def _is_by_permission(self, project_id: int) -> bool:
        project = await self.directory.project(project_id)
        return project is not None and project.access_control is AccessControl.PERMISSION

    async def _has_permission(self, caller: Principal, kind: PermissionKind, subject: int) -> bool:
        wanted = (f"{kind}:{subject}",)
        return bool(await self.directory.permissions_of(caller.project_id, caller.id, wanted))

    async def _require_active(self, project_id: int, home_id: int) -> None:
        """Raise InvalidInput, naming the home, if it is deactivated. A home that does not exist is no error
        here: the device is still in it for a moment."""
        if home_id in await self.directory.active_homes(project_id, (home_id,)):
            return
        if home_id in await self.directory.existing_homes(project_id, (home_id,)):
            raise _is_deactivated(home_id)


def _reach(rule: Rule, caller: Principal, resource: int) -> Reach:
    """What the caller reaches by this rule. Raises NotFound if that cannot include the resource."""
    reach = rule.reach(caller.kind)
    if reach is Reach.NOTHING or (reach is Reach.ITSELF and resource != caller.id):
        raise NotFound
    return reach


def _is_deactivated(home_id: int) -> InvalidInput:
    return InvalidInput("homeId", f"home {home_id} is deactivated", DEACTIVATED)


async def split_by_active(
    directory: HomeDirectory, project_id: int, home_ids: Collection[int]
) -> tuple[set[int], set[int]]:
    """The active homes, and the deactivated ones. It is one look-up if all are active."""
    active = await directory.active_homes(project_id, home_ids)
    if len(active) == len(home_ids):
        return active, set()
    missing = [each for each in home_ids if each not in active]
    return active, await directory.existing_homes(project_id, missing)


async def items_bound_elsewhere(
    directory: HomeDirectory, project_id: int, named: Sequence[tuple[int, str, int]]
) -> set[int]:
    """The indexes of those items whose entity is bound to another home. One look-up for all.

    `named` has index, entity and home of each item. An entity without a home may be named anywhere.
    """
    bound = await directory.entity_homes(project_id, {entity_id for _, entity_id, _ in named})
    return {index for index, entity_id, home in named if bound.get(entity_id, home) != home}


def bound_elsewhere() -> InvalidInput:
    """Why such an event is refused."""
    return InvalidInput("entityId", "is bound to another home")
