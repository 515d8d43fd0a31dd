"""The key-value store of homes and devices, and the events that its changes are."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Literal

from homewire.errors import Conflict, UnknownRecord
from homewire.model import KeyValue, Principal
from homewire.store import checks
from homewire.store.database import ATTEMPTS, Database, outrun, require_ok
from homewire.store.homes import deactivated
from homewire.store.keys import ProjectSlot
from homewire.store.parts import Part
from homewire.store.platform_events import VALUE_DELETED, VALUE_SAVED, envelope
from homewire.store.scripts.key_values import DELETE_VALUE, LIST_VALUES, PUT_VALUE

PAIRS_READ: Final = 500
"""Keys, and as many values, that one script reads at most: 1,000 elements."""
BYTES_READ: Final = 1024 * 1024
"""Of values, that one script reads; the last one may end behind that. Nobody waits for longer copying."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose values they are."""

    project_id: int
    kind: Literal["home", "device"]
    id: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many values an owner may have, and of how many bytes in all."""

    values: int
    bytes: int


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a change is heard of: 0, in no home."""

    home_id: int
    device_id: int = 0
    device_class: str | None = None


class KeyValues:
    """The values of a project's homes and devices.

    A change and its event are one step: whoever may hear the home hears of each change once. Of a device
    that is in no home nobody hears.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, owner: Owner, key: str) -> KeyValue | None:
        """A value; None if there is none of this key."""
        if not checks.is_value_key(key):
            return None
        slot = ProjectSlot(owner.project_id)
        stored = await self._database.read("HGET", slot.values(owner.kind, owner.id), key)
        return None if stored is None else _key_value(key.encode(), stored)

    async def find(
        self, owner: Owner, prefix: str = "", skip: int = 0, limit: int | None = None
    ) -> tuple[list[KeyValue], int]:
        """The values whose keys start with `prefix`, in the order of the bytes of their keys, without the
        first `skip`, at most `limit` of them; and how many there are.

        Read in chunks: what changes meanwhile is there or not, and nothing else is there twice or missing.
        """
        part = await self.part(owner, prefix, skip, limit)
        found = await part.whole()
        # Of a whole list as many as are in this answer, whatever changed while it was read.
        return found, skip + len(found) if limit is None and found else part.total

    async def part(
        self, owner: Owner, prefix: str = "", skip: int = 0, limit: int | None = None
    ) -> Part[KeyValue]:
        """The same, of which only the first chunk was read yet."""
        start = prefix.encode("utf-8", "replace")
        # No key has a byte above those of ASCII.
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
        self, owner: Owner, key: str, value: bytes, bounds: Bounds, by: Principal | None = None
    ) -> None:
        """Keep a value, JSON as it is to be given back. `by` is who asked for it.

        Raises InvalidInput, UnknownRecord (home, device), Conflict (TOO_MANY_VALUES, HOME_DEACTIVATED).
        Listeners hear the value too, unless it is so close to its bound that no event could carry it.
        """
        checks.value_key(key)
        checks.json_value("value", value)
        slot, now = ProjectSlot(owner.project_id), self._database.now_ms()
        for _ in range(ATTEMPTS):
            place = await self._place(owner)
            data = b'{"key":"%b","value":%b}' % (key.encode(), value)
            event = _event(VALUE_SAVED, data, owner, place, now, by)
            if event is None:
                event = _event(VALUE_SAVED, b'{"key":"%b"}' % key.encode(), owner, place, now, by)
            answer = await self._database.change(
                PUT_VALUE,
                slot,
                _names(slot, owner, place),
                [
                    owner.kind, key, b"%d %b" % (now, value), bounds.values, bounds.bytes,
                    place.home_id, event or b"",
                ],
            )  # fmt: skip
            if answer[0] == "full":
                raise _full(owner, bounds, answer[1])
            if answer[0] == "deactivated":
                raise deactivated(place.home_id)
            if answer[0] != "moved":
                return require_ok(answer, project=owner.project_id, **{owner.kind: owner.id})
        raise outrun(owner.kind)

    async def delete(self, owner: Owner, key: str, by: Principal | None = None) -> None:
        """Forget a value. Raises UnknownRecord (home, device, key), Conflict (HOME_DEACTIVATED)."""
        if not checks.is_value_key(key):
            raise UnknownRecord("key", key)
        slot, now = ProjectSlot(owner.project_id), self._database.now_ms()
        for _ in range(ATTEMPTS):
            place = await self._place(owner)
            event = _event(VALUE_DELETED, b'{"key":"%b"}' % key.encode(), owner, place, now, by)
            answer = await self._database.change(
                DELETE_VALUE,
                slot,
                _names(slot, owner, place),
                [owner.kind, key, place.home_id, event or b""],
            )
            if answer[0] == "deactivated":
                raise deactivated(place.home_id)
            if answer[0] != "moved":
                return require_ok(answer, project=owner.project_id, key=key, **{owner.kind: owner.id})
        raise outrun(owner.kind)

    async def _page(
        self, owner: Owner, bounds: tuple[bytes, bytes, bytes], skip: int, limit: int | None
    ) -> tuple[list[KeyValue], int]:
        slot = ProjectSlot(owner.project_id)
        count = PAIRS_READ if limit is None else min(limit, PAIRS_READ)
        total, *pairs = await self._database.ask(
            LIST_VALUES,
            [slot.values(owner.kind, owner.id), slot.value_keys(owner.kind, owner.id)],
            [*bounds, skip, count, BYTES_READ],
        )
        return [_key_value(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=True)], int(total)

    async def _place(self, owner: Owner) -> _Place:
        if owner.kind == "home":
            return _Place(owner.id)
        name = ProjectSlot(owner.project_id).device(owner.id)
        home, device_class = await self._database.read("HMGET", name, "home", "class")
        # Of a device that does not exist the script says so.
        return _Place(int(home or 0), owner.id, (device_class or b"").decode())


def _names(slot: ProjectSlot, owner: Owner, place: _Place) -> list[str]:
    owned = slot.home(owner.id) if owner.kind == "home" else slot.device(owner.id)
    values, keys = slot.values(owner.kind, owner.id), slot.value_keys(owner.kind, owner.id)
    # That of home 0, which is none, is named and never there.
    return [owned, values, keys, slot.home(place.home_id)]


def _event(
    event_type: str, data: bytes, owner: Owner, place: _Place, now: int, by: Principal | None
) -> bytes | None:
    return envelope(
        event_type,
        data,
        project_id=owner.project_id,
        home_id=place.home_id,
        time_ms=now,
        device_id=place.device_id,
        device_class=place.device_class,
        by=by,
    )


def _full(owner: Owner, bounds: Bounds, what: str) -> Conflict:
    most = bounds.values if what == "values" else bounds.bytes
    unit = "values" if what == "values" else "bytes of values"
    return Conflict("TOO_MANY_VALUES", f"the {owner.kind} may have at most {most} {unit}")


def _key_value(key: bytes, stored: bytes) -> KeyValue:
    modified, _, value = stored.partition(b" ")
    return KeyValue(key.decode(), value, int(modified))
