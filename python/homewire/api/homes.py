"""Homes (spec 001, *Homes*)."""

from __future__ import annotations

from typing import Final

import msgspec

from homewire import model
from homewire.api import models
from homewire.api.context import Api
from homewire.api.operation import Access, Call, NoQuery, Operation
from homewire.api.times import timestamp
from homewire.api.visibility import home_in_path
from homewire.errors import NotFound
from homewire.model import Permission


class NewHome(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Create Home*."""

    name: str


def shown(home: model.Home) -> models.Home:
    """A home as answers show it."""
    return models.Home(
        id=home.id, project_id=home.project_id, creation_time=timestamp(home.created_ms), name=home.name
    )


async def create_home(api: Api, call: Call[NoQuery, NewHome]) -> models.Home:
    """The caller becomes its owner."""
    return shown(await api.store.homes.create(call.project_id, call.body.name, call.principal.id))


async def get_home(api: Api, call: Call[NoQuery, None]) -> models.Home:
    """A home that the caller may see."""
    home = await api.store.homes.get(call.project_id, call.ids["homeId"])
    if home is None:
        raise NotFound
    return shown(home)


OPERATIONS: Final = (
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
        answer=models.Home,
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="getHome",
        method="GET",
        path="/homes/{homeId}",
        tag="Homes",
        summary="Get a home",
        source="spec 001, Get Home",
        access=Access(user=True, permission=Permission.READ),
        visible=home_in_path,
        handler=get_home,
        answer=models.Home,
    ),
)
