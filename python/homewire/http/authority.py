"""Who calls, and what is where: what handlers are given to ask, without knowing who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from aiohttp import web

from homewire.model import DeviceLocation, Principal, Project

Authenticate = Callable[[web.Request], Awaitable[Principal]]
"""Who a request speaks for, by its key. Raises Unauthenticated, and PermissionDenied for a page of another
origin that acts with the cookie of a session."""


class Directory(Protocol):
    """Where homes and devices are: the gateway's cached view of the store.

    An answer may be older than a change that another node answered already, by as much as this node's tail
    is behind: what comes in during these milliseconds is taken as from before the change.

    Each method may raise `errors.Unavailable`. Ids of other projects are unknown ids.
    """

    async def project(self, project_id: int) -> Project | None:
        """The project, unless it was deleted."""
        ...

    async def locate(self, project_id: int, device_ids: Collection[int]) -> dict[int, DeviceLocation]:
        """The devices of the project among `device_ids`; unknown ids are missing."""
        ...

    async def locate_now(self, project_id: int, device_ids: Collection[int]) -> dict[int, DeviceLocation]:
        """The same as the store has it now."""
        ...

    async def existing_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """The homes of the project among `home_ids`."""
        ...

    async def active_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """Those that are not deactivated."""
        ...

    async def entity_homes(self, project_id: int, entity_ids: Collection[str]) -> dict[str, int]:
        """The home that each of `entity_ids` is bound to; those that are bound to none are missing. As
        the store has it now."""
        ...

    async def member_of(self, project_id: int, user_id: int, home_ids: Collection[int]) -> set[int]:
        """Those of `home_ids` that the user may act in."""
        ...

    async def rights_of(self, project_id: int, user_id: int, wanted: Collection[str]) -> set[str]:
        """Those of these rights (`model.Right`, as texts) that the user has."""
        ...
