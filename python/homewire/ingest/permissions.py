"""Who may send what."""

from __future__ import annotations

from homewire.errors import PermissionDenied
from homewire.model import Permission, Principal, PrincipalKind


def require_project_key(principal: Principal, permission: Permission) -> None:
    """Raises PermissionDenied unless `principal` is a project key with `permission`, or with `admin`."""
    if principal.kind is not PrincipalKind.PROJECT_KEY or principal.permissions.isdisjoint(
        (permission, Permission.ADMIN)
    ):
        raise PermissionDenied(needs=f"a project key with the permission {permission}")
