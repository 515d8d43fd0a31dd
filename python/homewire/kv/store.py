"""The key-value store of homes and devices (spec 001, *Key-Value Store*), and the events of its changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Literal

from homewire._core import InvalidField, event_envelope, parse_event
from homewire.auth.actions import ACTIVE
from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import Conflict, UnknownRecord
from homewire.homes.store import deactivated
from homewire.store import checks
from homewire.store.database import ATTEMPTS, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.parts import Part
from homewire.store.script import changing, lua, reading, removing

PUT_VALUE: Final = changing(lua(__package__, "put_value", ACTIVE=ACTIVE), sends=True, charges=True)
DELETE_VALUE: Final = removing(lua(__package__, "delete_value", ACTIVE=ACTIVE), sends=True, charges=True)
LIST_VALUES: Final = reading(lua(__package__, "list_values"))

VALUE_SAVED: Final = "_keyValueSaved_"
VALUE_DELETED: Final = "_keyValueDeleted_"

MAX_PAIRS_READ: Final = 500
"""Keys with their values that one script reads: 1,000 elements."""
MAX_BYTES_READ: Final = 128 * 1024
"""Bytes of values after which a script stops reading: to copy them blocks Redis and the event loop."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A value of a home or device: JSON, with the bytes that the client sent."""

    key: str
    value: bytes
    modified_ms: int


@dataclass(frozen=True, slots=True)
class Owner:
    """The home or device that values belong to."""

    project_id: int
    kind: Literal["home", "device"]
    id: int


@dataclass(frozen=True, slots=True)
class ValueLimits:
    """The most values of an owner, and the most bytes of all of them."""

    values: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Location:
    """The home in which a change is published; 0: none."""

    home_id: int
    device_id: int = 0
    device_class: str | None = None


class KeyValues:
    """The values of a project's homes and devices.

    A change and its event are one step: subscribers of the home receive each change once. There is no event
    for a device in no home.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, owner: Owner, key: str) -> KeyValue | None:
        """A value; None for an unknown key."""
        if not checks.is_value_key(key):
            return None
        slot = ProjectSlot(owner.project_id)
        stored = await self._database.read("HGET", slot.values(owner.kind, owner.id), key)
        return None if stored is None else _key_value(key.encode(), stored)

    async def find(
        self, owner: Owner, prefix: str = "", skip: int = 0, limit: int | None = None
    ) -> tuple[list[KeyValue], int]:
        """At most `limit` values whose keys start with `prefix`, without the first `skip`; and how many.

        The order is that of the bytes of the keys. A value that changes meanwhile is there or not; no other
        value is missing or there twice.
        """
        part = await self.part(owner, prefix, skip, limit)
        found = await part.whole()
        # The total of a whole list is the length of this answer, whatever changed while it was read.
        return found, skip + len(found) if limit is None and found else part.total

    async def part(
        self, owner: Owner, prefix: str = "", skip: int = 0, limit: int | None = None
    ) -> Part[KeyValue]:
        """The values that `find` returns. Pages after the first are read on demand."""
        start = prefix.encode("utf-8", "replace")
        # Keys consist of ASCII.
        below, first, last = b"(" + start, b"[" + start, b"[" + start + b"\xff"
        found, total = await self._page(owner, (below, first, last), skip, limit)

        async def pages() -> AsyncGenerator[list[KeyValue]]:
            page, left = found, total - skip
            while page:
                yield page
                left -= len(page)
                reached = page[-1].key.encode()
                if left <= 0:
                    return
                page, left = await self._page(owner, (b"[" + reached, b"(" + reached, last), 0, None)

        return await Part.of(pages(), skip, limit, total)

    async def put(
        self, owner: Owner, key: str, value: bytes, limits: ValueLimits, by: Principal | None = None
    ) -> None:
        """Store a value: JSON, with the bytes that are to be returned. `by` is the caller.

        The event contains the value unless it is too long for one. Raises InvalidInput, UnknownRecord (home,
        device), Conflict (TOO_MANY_VALUES, HOME_DEACTIVATED), QuotaExceeded.
        """
        checks.value_key(key)
        checks.json_value("value", value)
        slot, now = ProjectSlot(owner.project_id), self._database.now_ms()
        for _ in range(ATTEMPTS):
            location = await self._locate(owner)
            data = b'{"key":"%b","value":%b}' % (key.encode(), value)
            event = _event(VALUE_SAVED, data, owner, location, now, by)
            if event is None:
                event = _event(VALUE_SAVED, b'{"key":"%b"}' % key.encode(), owner, location, now, by)
            answer = await self._database.change(
                PUT_VALUE,
                slot,
                _names(slot, owner, location),
                [
                    owner.kind, key, b"%d %b" % (now, value), limits.values, limits.bytes,
                    location.home_id, event or b"",
                ],
            )  # fmt: skip
            if answer[0] == "full":
                raise _full(owner, limits, answer[1])
            if answer[0] == "deactivated":
                raise deactivated(location.home_id)
            if answer[0] != "moved":
                return require_ok(answer, project=owner.project_id, **{owner.kind: owner.id})
        raise retries_exhausted(owner.kind)

    async def delete(self, owner: Owner, key: str, by: Principal | None = None) -> None:
        """Delete a value. Raises UnknownRecord (home, device, key), Conflict (HOME_DEACTIVATED)."""
        if not checks.is_value_key(key):
            raise UnknownRecord("key", key)
        slot, now = ProjectSlot(owner.project_id), self._database.now_ms()
        for _ in range(ATTEMPTS):
            location = await self._locate(owner)
            event = _event(VALUE_DELETED, b'{"key":"%b"}' % key.encode(), owner, location, now, by)
            answer = await self._database.change(
                DELETE_VALUE,
                slot,
                _names(slot, owner, location),
                [owner.kind, key, location.home_id, event or b""],
            )
            if answer[0] == "deactivated":
                raise deactivated(location.home_id)
            if answer[0] != "moved":
                return require_ok(answer, project=owner.project_id, key=key, **{owner.kind: owner.id})
        raise retries_exhausted(owner.kind)

    async def _page(
        self, owner: Owner, bounds: tuple[bytes, bytes, bytes], skip: int, limit: int | None
    ) -> tuple[list[KeyValue], int]:
        slot = ProjectSlot(owner.project_id)
        count = MAX_PAIRS_READ if limit is None else min(limit, MAX_PAIRS_READ)
        total, *pairs = await self._database.ask(
            LIST_VALUES,
            [slot.values(owner.kind, owner.id), slot.value_keys(owner.kind, owner.id)],
            [*bounds, skip, count, MAX_BYTES_READ],
        )
        return [_key_value(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)], int(total)

    async def _locate(self, owner: Owner) -> _Location:
        if owner.kind == "home":
            return _Location(owner.id)
        name = ProjectSlot(owner.project_id).device(owner.id)
        home, device_class = await self._database.read("HMGET", name, "home", "class")
        # The script refuses a device that does not exist.
        return _Location(int(home or 0), owner.id, (device_class or b"").decode())


def _names(slot: ProjectSlot, owner: Owner, location: _Location) -> list[str]:
    owned = slot.home(owner.id) if owner.kind == "home" else slot.device(owner.id)
    values, keys = slot.values(owner.kind, owner.id), slot.value_keys(owner.kind, owner.id)
    # The key of home 0 is declared, and never exists.
    return [owned, values, keys, slot.home(location.home_id)]


def _full(owner: Owner, limits: ValueLimits, what: str) -> Conflict:
    limit = limits.values if what == "values" else limits.bytes
    unit = "values" if what == "values" else "bytes of values"
    return Conflict("TOO_MANY_VALUES", f"the {owner.kind} may have at most {limit} {unit}")


def _key_value(key: bytes, stored: bytes) -> KeyValue:
    modified, _, value = stored.partition(b" ")
    return KeyValue(key.decode(), value, int(modified))


def _event(
    event_type: str, data: bytes, owner: Owner, location: _Location, now: int, by: Principal | None
) -> bytes | None:
    """The envelope of an event. None if `data`, a JSON object, is larger than an event may be.

    `by` is the caller. The event names a project key.
    """
    try:
        event = parse_event(b'{"eventType":"%b","eventData":%b}' % (event_type.encode(), data))
    except InvalidField:
        return None
    key = by if by is not None and by.kind is PrincipalKind.PROJECT_KEY else None
    return event_envelope(
        event,
        owner.project_id,
        location.home_id,
        location.device_id,
        now,
        location.device_class,
        None,
        key.id if key else 0,
        key.name if key else None,
    )
