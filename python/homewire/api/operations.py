"""The table: every operation of the REST service."""

from __future__ import annotations

from typing import Final

from homewire.api import homes
from homewire.api.operation import Operation

OPERATIONS: Final[tuple[Operation, ...]] = (*homes.OPERATIONS,)
