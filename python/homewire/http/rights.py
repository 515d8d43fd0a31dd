"""Whether a user may change something, where rights and not memberships say so."""

from __future__ import annotations

from homewire.errors import PermissionDenied
from homewire.http.authority import Directory
from homewire.model import AccessControl, Principal, PrincipalKind, Right, RightKind


async def by_right(directory: Directory, caller: Principal, kind: RightKind, subject: int) -> bool | None:
    """Whether the caller has this right to a home or device.

    None: rights say nothing here, because the caller is no user, or memberships say who may.
    """
    if caller.kind is not PrincipalKind.USER:
        return None
    project = await directory.project(caller.project_id)
    if project is None or project.access_control is not AccessControl.PERMISSION:
        return None
    return bool(await directory.rights_of(caller.project_id, caller.id, (f"{kind}:{subject}",)))


def right_needed(kind: RightKind, subject: int) -> PermissionDenied:
    """What somebody gets who sees a home or device, and may not change it."""
    return PermissionDenied(needs=f"the permission {Right(kind, str(subject))}")
