"""What the sections of the settings are made of: the field `setting`, sizes, and types of choices."""

from __future__ import annotations

import dataclasses
from typing import Any, Final, Literal

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

BULK_BODY_BYTES: Final = 4 * MIB
"""Maximum body of `POST /events`, in bytes."""
BULK_ITEMS: Final = 1_000
"""Maximum number of events in one body; `MAX_ITEMS` in the core is the same number."""
ADDED_TO_AN_EVENT_BYTES: Final = 4 * KIB
"""Maximum size that an event grows by between the request and a send queue.

The server adds the names of device class and project key (256 characters each, up to six bytes each in JSON),
ids, time, address, member names, the frame header and the record of the queue, about 3.5 KB in all.
"""
LARGEST_BULK_BYTES: Final = BULK_BODY_BYTES + BULK_ITEMS * ADDED_TO_AN_EVENT_BYTES
"""Maximum size of one bulk in the send queue of a client that has read nothing of it."""

Durability = Literal["always", "everysec"]
EventLoop = Literal["uvloop", "asyncio"]
SmtpTls = Literal["none", "starttls", "tls"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]
ForwardedHeader = Literal["x-forwarded-for", "forwarded"]


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    flag: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
) -> Any:
    """One row of the table: a dataclass field with what the help texts and docs/settings.md say about it.

    `flag` is the command line option, if there is one. A `secret` value is left out of `repr`.
    """
    metadata = {
        "description": description,
        "unit": unit,
        "flag": flag,
        "minimum": minimum,
        "maximum": maximum,
        "secret": secret,
    }
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)
