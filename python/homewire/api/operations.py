"""The table: every operation of the REST service."""

from __future__ import annotations

from typing import Final

from homewire.api import (
    address_changes,
    authentication,
    devices,
    entities,
    groups,
    homes,
    key_values,
    login_tokens,
    members,
    permissions,
    provisioning,
    realtime,
    smart_modules,
    user_session,
    users,
    verification,
)
from homewire.api.dialects import ndata, rocket_chat, sessions_controller
from homewire.api.operation import Endpoint, Operation

OPERATIONS: Final[tuple[Operation, ...]] = (
    *users.OPERATIONS,
    *address_changes.OPERATIONS,
    *login_tokens.OPERATIONS,
    *homes.OPERATIONS,
    *members.OPERATIONS,
    *devices.OPERATIONS,
    *provisioning.OPERATIONS,
    *key_values.OPERATIONS,
    *entities.OPERATIONS,
    *permissions.OPERATIONS,
    *groups.OPERATIONS,
    *smart_modules.OPERATIONS,
    *authentication.OPERATIONS,
    *verification.OPERATIONS,
    *user_session.OPERATIONS,
    *sessions_controller.OPERATIONS,
    *ndata.OPERATIONS,
    *rocket_chat.OPERATIONS,
)

ENDPOINTS: Final[tuple[Endpoint, ...]] = (*OPERATIONS, *realtime.ENDPOINTS)
"""The whole interface: these, and what the router serves."""
