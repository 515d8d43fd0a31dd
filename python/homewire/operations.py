"""The table: every operation of the REST service."""

from __future__ import annotations

from typing import Final

from homewire.compat import ndata, rocket_chat, sessions_controller
from homewire.devices import api as devices
from homewire.entities import api as entities
from homewire.groups import api as groups
from homewire.homes import api as homes
from homewire.kv import api as key_values
from homewire.logins import api as authentication
from homewire.openapi import realtime
from homewire.permissions import api as permissions
from homewire.rest.operation import Endpoint, Operation
from homewire.sessions import api as user_session
from homewire.users import api as users
from homewire.users import verification_api as verification
from homewire.webhooks import api as smart_modules

OPERATIONS: Final[tuple[Operation, ...]] = (
    *users.OPERATIONS,
    *homes.OPERATIONS,
    *devices.OPERATIONS,
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
