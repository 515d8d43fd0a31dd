"""Where a device is, for somebody who may be refused because of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from homewire.errors import NotFound
from homewire.http.authority import Directory
from homewire.model import DeviceLocation

Allowed = TypeVar("Allowed")


async def judged(
    directory: Directory,
    project_id: int,
    device_id: int,
    judge: Callable[[DeviceLocation | None], Awaitable[Allowed]],
) -> Allowed:
    """What `judge` says of a device where it is; None: there is none.

    Raises NotFound, as `judge` does, only by what the store has now: who moved the device through another
    node a moment ago is not refused for where this one remembers it.
    """
    located = await directory.locate(project_id, (device_id,))
    try:
        return await judge(located.get(device_id))
    except NotFound:
        located = await directory.locate_now(project_id, (device_id,))
        return await judge(located.get(device_id))
