"""The table: every operation of the REST service."""

from __future__ import annotations

from typing import Final

from homewire.api import devices, homes, members, provisioning, realtime, smart_modules
from homewire.api.operation import Endpoint, Operation

OPERATIONS: Final[tuple[Operation, ...]] = (
    *homes.OPERATIONS,
    *members.OPERATIONS,
    *devices.OPERATIONS,
    *provisioning.OPERATIONS,
    *smart_modules.OPERATIONS,
)

ENDPOINTS: Final[tuple[Endpoint, ...]] = (*OPERATIONS, *realtime.ENDPOINTS)
"""The whole interface: these, and what the router serves."""
