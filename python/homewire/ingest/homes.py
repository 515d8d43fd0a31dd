"""Homes that are deactivated: nothing is taken for them."""

from __future__ import annotations

from collections.abc import Collection

from homewire.errors import InvalidInput, NotFound, RequestError
from homewire.http.authority import Directory

DEACTIVATED = "HOME_DEACTIVATED"


async def require_active(directory: Directory, project_id: int, home_id: int) -> None:
    """Raises InvalidInput, naming the home, if it is deactivated. One that does not exist is not."""
    _, deactivated = await parted(directory, project_id, (home_id,))
    if deactivated:
        raise _is_deactivated(home_id)


async def why_not_active(directory: Directory, project_id: int, home_id: int) -> RequestError:
    """What to raise for a home that is not active: InvalidInput if it is deactivated, NotFound if there is
    none."""
    if await directory.existing_homes(project_id, (home_id,)):
        return _is_deactivated(home_id)
    return NotFound()


async def parted(
    directory: Directory, project_id: int, home_ids: Collection[int]
) -> tuple[set[int], set[int]]:
    """The homes that are active, and those that are deactivated. Mostly all are active, and then it is one
    look-up."""
    active = await directory.active_homes(project_id, home_ids)
    if len(active) == len(home_ids):
        return active, set()
    missing = [each for each in home_ids if each not in active]
    return active, await directory.existing_homes(project_id, missing)


def _is_deactivated(home_id: int) -> InvalidInput:
    return InvalidInput("homeId", f"home {home_id} is deactivated", DEACTIVATED)
