"""Events that the platform itself emits, together with the change that they tell of."""

from __future__ import annotations

from typing import Final

from homewire._core import InvalidField, event_envelope, parse_event
from homewire.model import Principal, PrincipalKind

VALUE_SAVED: Final = "_keyValueSaved_"
VALUE_DELETED: Final = "_keyValueDeleted_"


def envelope(
    event_type: str,
    data: bytes,
    *,
    project_id: int,
    home_id: int,
    time_ms: int,
    device_id: int = 0,
    device_class: str | None = None,
    by: Principal | None = None,
) -> bytes | None:
    """What a script `report`s. `data` is a JSON object; None if it is more than an event may carry.

    `by` is who asked for the change: of a project key, the event tells which.
    """
    try:
        event = parse_event(b'{"eventType":"%b","eventData":%b}' % (event_type.encode(), data))
    except InvalidField:
        return None
    by_key = by is not None and by.kind is PrincipalKind.PROJECT_KEY
    return event_envelope(
        event,
        project_id,
        home_id,
        device_id,
        time_ms,
        device_class,
        None,
        by.id if by is not None and by_key else 0,
        by.name if by is not None and by_key else None,
    )
