"""Homes that are deactivated: nothing is taken for them."""

from __future__ import annotations

from collections.abc import Collection

from homewire.errors import InvalidInput
from homewire.http.authority import Directory

DEACTIVATED = "HOME_DEACTIVATED"


async def require_active(directory: Directory, project_id: int, home_id: int) -> None:
    """Raises InvalidInput, naming the home, if it is deactivated. One that does not exist is not."""
    if await deactivated_homes(directory, project_id, (home_id,)):
        raise InvalidInput("homeId", f"home {home_id} is deactivated", DEACTIVATED)


async def deactivated_homes(directory: Directory, project_id: int, home_ids: Collection[int]) -> set[int]:
    """Those of the homes that exist and are deactivated. Mostly none, and then it is one look-up."""
    active = await directory.active_homes(project_id, home_ids)
    if len(active) == len(home_ids):
        return set()
    return await directory.existing_homes(project_id, [each for each in home_ids if each not in active])
