"""Homes (spec 001, *Homes*)."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Final

import msgspec

from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from homewire.homes.models import Home as HomeRecord
from homewire.homes.store import NO_USER
from homewire.projects.models import KeyScope
from homewire.rest import models
from homewire.rest.context import Api
from homewire.rest.decoding import WholeObject, changes
from homewire.rest.operation import Access, Call, NoQuery, Operation, Paging
from homewire.rest.visibility import home_in_path
from homewire.store.parts import Part
from homewire.timestamps import timestamp


class HomeQuery(Paging, kw_only=True, rename="camel"):
    """The user whose homes are listed. A project key may name its project instead."""

    user_id: models.Id | None = None
    project_id: models.Id | None = None


class NewHome(WholeObject, frozen=True, kw_only=True, rename="camel"):
    """The body of *Create Home*."""

    name: str
    timezone: str | None = None


class HomeChanges(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Update Home*: name and time zone (null or empty: none), with a project key also
    `deactivated`.

    Other members are accepted if unchanged.
    """

    name: str | msgspec.UnsetType = msgspec.UNSET
    timezone: str | msgspec.UnsetType | None = msgspec.UNSET
    id: int | msgspec.UnsetType = msgspec.UNSET
    project_id: int | msgspec.UnsetType = msgspec.UNSET
    creation_time: str | msgspec.UnsetType = msgspec.UNSET
    deactivated: bool | msgspec.UnsetType = msgspec.UNSET


DEACTIVATED: Final = (
    "Connections receive no events of a deactivated home. Events to it or from its devices, commands to "
    "them, and values are refused with 403 `HOME_DEACTIVATED`. It keeps its members, devices and values, "
    "which can be read."
)


def to_response(home: HomeRecord) -> models.Home:
    """The Home of a response."""
    return models.Home(
        id=home.id,
        project_id=home.project_id,
        creation_time=timestamp(home.created_ms),
        name=home.name,
        timezone=home.timezone,
        deactivated=home.deactivated,
    )


def acting_user(caller: Principal) -> int:
    """The `caller_id` of the repository: the calling user, or NO_USER for a project key."""
    return caller.id if caller.kind is PrincipalKind.USER else NO_USER


async def get_homes(api: Api, call: Call[HomeQuery, None]) -> Part[models.Home]:
    """List the homes of a user by id; with a project key also those of the project."""
    store, project_id, query = api.store.homes, call.project_id, call.query
    if query.project_id not in (None, project_id):
        raise PermissionDenied(field="projectId", problem="is not the project of the key")
    if query.user_id is not None:
        await _require_user(api, call.principal, query.user_id)
        ids = await store.of_user(project_id, query.user_id)
        total = len(ids)
        ids = ids[query.skip : None if query.limit is None else query.skip + query.limit]
    elif query.project_id is not None and call.principal.kind is PrincipalKind.PROJECT_KEY:
        ids, total = await store.slice(project_id, query.skip, query.limit)
    else:
        raise InvalidInput("userId", "is required")
    part = await Part.by_ids(ids, query.skip, total, partial(store.all_of, project_id))
    return part.shown(to_response)


async def create_home(api: Api, call: Call[NoQuery, NewHome]) -> models.Home:
    """Create a home. The calling user becomes its owner."""
    body = call.body
    return to_response(
        await api.store.homes.create(call.project_id, body.name, call.principal.id, body.timezone or None)
    )


async def get_home(api: Api, call: Call[NoQuery, None]) -> models.Home:
    """Get a home. A user who was invited to it accepts the invitation by that."""
    if call.principal.kind is PrincipalKind.USER:
        # A user with too many homes cannot accept, and gets the home all the same.
        with suppress(Conflict):
            await api.store.homes.accept(call.project_id, call.ids["homeId"], call.principal.id)
    return to_response(await _home(api, call.project_id, call.ids["homeId"]))


async def update_home(api: Api, call: Call[NoQuery, HomeChanges]) -> None:
    """Set name and time zone, as an owner. A project key may also deactivate or activate the home."""
    home_id, is_user = call.ids["homeId"], call.principal.kind is PrincipalKind.USER
    home = await _home(api, call.project_id, home_id)
    mutable = {"name", "timezone"} if is_user else {"name", "timezone", "deactivated"}
    wanted = changes(call.body, to_response(home), mutable)
    deactivated = wanted.pop("deactivated", None)
    given = {field: value or "" for field, value in wanted.items()}
    if deactivated is None:
        await api.store.homes.update(call.project_id, home_id, given, acting_user(call.principal))
    else:
        # Also without a change: an earlier one that was not confirmed must reach all nodes before this is
        # answered.
        await api.store.homes.set_deactivated(call.project_id, home_id, deactivated, given)


async def delete_home(api: Api, call: Call[NoQuery, None]) -> None:
    """Delete a home, as an owner. Its devices are in no home afterwards."""
    await api.store.homes.delete(call.project_id, call.ids["homeId"], acting_user(call.principal))


async def _home(api: Api, project_id: int, home_id: int) -> HomeRecord:
    home = await api.store.homes.get(project_id, home_id)
    if home is None:
        raise NotFound
    return home


async def _require_user(api: Api, caller: Principal, user_id: int) -> None:
    """Raises PermissionDenied for another or an unknown user."""
    if caller.kind is PrincipalKind.USER:
        known = caller.id == user_id
    else:
        known = bool(await api.store.users.get_many(caller.project_id, [user_id]))
    if not known:
        raise PermissionDenied(field="userId", problem="is not a user whose homes this key may list")


OPERATIONS: Final = (
    Operation(
        name="getHomes",
        method="GET",
        path="/homes",
        tag="Homes",
        summary="List the homes of a user; with a project key also those of the project",
        source="spec 001, Get Homes",
        access=Access(user=True, scope=KeyScope.READ),
        handler=get_homes,
        query=HomeQuery,
        answer=list[models.Home],
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="createHome",
        method="POST",
        path="/homes",
        tag="Homes",
        summary="Create a home; the user becomes its owner",
        source="spec 001, Create Home",
        access=Access(user=True),
        handler=create_home,
        body=NewHome,
        success=201,
        located="id",
        answer=models.Home,
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="getHome",
        method="GET",
        path="/homes/{homeId}",
        tag="Homes",
        summary="Get a home",
        description="A user who was invited to the home accepts the invitation with this request.",
        source="spec 001, Get Home",
        access=Access(user=True, scope=KeyScope.READ),
        visible=home_in_path,
        handler=get_home,
        answer=models.Home,
    ),
    Operation(
        name="updateHome",
        method="PATCH",
        path="/homes/{homeId}",
        tag="Homes",
        summary="Change the name or time zone of a home, as an owner",
        description="A project key may also deactivate and activate it. " + DEACTIVATED,
        source="spec 001, Update Home",
        access=Access(user=True, scope=KeyScope.ADMIN),
        visible=home_in_path,
        handler=update_home,
        body=HomeChanges,
        success=204,
    ),
    Operation(
        name="deleteHome",
        method="DELETE",
        path="/homes/{homeId}",
        tag="Homes",
        summary="Delete a home, as an owner",
        source="spec 001, Delete Home",
        access=Access(user=True, scope=KeyScope.ADMIN),
        visible=home_in_path,
        handler=delete_home,
        success=204,
    ),
)
