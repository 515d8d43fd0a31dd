"""The key-value store of homes and devices, and the events that its changes are.

Scripts of the key-value store. See `script.py` for what they answer.

Events that the platform itself emits, together with the change that they tell of.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Literal

from homewire._core import InvalidField, event_envelope, parse_event
from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import Conflict, UnknownRecord
from homewire.homes.store import deactivated
from homewire.kv.models import KeyValue
from homewire.store import checks
from homewire.store.database import ATTEMPTS, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.parts import Part
from homewire.store.script import changing, reading, removing

PAIRS_READ: Final = 500
"""Keys, and as many values, that one script reads at most: 1,000 elements."""
BYTES_READ: Final = 128 * 1024
"""Of values, that one script reads; the last one may end behind that. So nobody waits long for Redis, or for
the event loop, while they are copied."""


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
        raise retries_exhausted(owner.kind)

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
        raise retries_exhausted(owner.kind)

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


_OWNER: Final = """
-- What a value counts for: the home that it is in, or the project alone.
local function owner_of(home) return home == '0' and '0' or 'h' .. home end
"""

PUT_VALUE: Final = changing(
    _OWNER
    + """
-- KEYS: …, home or device, its values, their keys, the home that hears of it
-- ARGV: 'home' or 'device', key, value, most values, most bytes, id of that home or 0, event
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', ARGV[1]} end
if ARGV[1] == 'device' and redis.call('HGET', KEYS[3], 'home') ~= ARGV[6] then return {'moved'} end
if is_deactivated(KEYS[6]) then return {'deactivated'} end
local before = redis.call('HSTRLEN', KEYS[4], ARGV[2])
local growth = #ARGV[3] - before
local bytes = tonumber(redis.call('HGET', KEYS[4], '_bytes') or 0) + growth
if before == 0 and redis.call('ZCARD', KEYS[5]) >= tonumber(ARGV[4]) then return {'full', 'values'} end
-- What makes it smaller is always taken.
if growth > 0 and bytes > tonumber(ARGV[5]) then return {'full', 'bytes'} end
local is_new = before == 0 and 1 or 0
local over = charge(owner_of(ARGV[6]), growth + is_new * COST.value, is_new)
if over then return over end
redis.call('HSET', KEYS[4], ARGV[2], ARGV[3], '_bytes', bytes)
redis.call('ZADD', KEYS[5], 0, ARGV[2])
if redis.call('EXISTS', KEYS[6]) == 1 then publish_event(ARGV[6], ARGV[7]) end
return unannounced('value_saved')
""",
    sends=True,
    charges=True,
)

DELETE_VALUE: Final = removing(
    _OWNER
    + """
-- KEYS: …, home or device, its values, their keys, the home that hears of it
-- ARGV: 'home' or 'device', key, id of that home or 0, event
if redis.call('EXISTS', KEYS[3]) == 0 then return {'unknown', ARGV[1]} end
if ARGV[1] == 'device' and redis.call('HGET', KEYS[3], 'home') ~= ARGV[3] then return {'moved'} end
if is_deactivated(KEYS[6]) then return {'deactivated'} end
local bytes = redis.call('HSTRLEN', KEYS[4], ARGV[2])
if bytes == 0 then return {'unknown', 'key'} end
release(owner_of(ARGV[3]), bytes + COST.value, 1)
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[2])
if redis.call('EXISTS', KEYS[5]) == 1 then
  redis.call('HINCRBY', KEYS[4], '_bytes', -bytes)
else
  redis.call('UNLINK', KEYS[4])
end
if redis.call('EXISTS', KEYS[6]) == 1 then publish_event(ARGV[3], ARGV[4]) end
return unannounced('value_deleted')
""",
    sends=True,
    charges=True,
)

LIST_VALUES: Final = reading("""
-- KEYS: values, their keys. ARGV: everything below the first, the first, the last, how many to skip, how
-- many to answer, how many bytes may be reached before no other value is answered. How many there are, then
-- key and value of each. Ranks instead of LIMIT, which would walk over what it skips.
local total = redis.call('ZLEXCOUNT', KEYS[2], ARGV[2], ARGV[3])
local skip = tonumber(ARGV[4])
local count = math.min(tonumber(ARGV[5]), total - skip)
local answer = {total}
if count <= 0 then return answer end
local first = redis.call('ZLEXCOUNT', KEYS[2], '-', ARGV[1]) + skip
local keys = redis.call('ZRANGE', KEYS[2], first, first + count - 1)
local most = tonumber(ARGV[6])
if tonumber(redis.call('HGET', KEYS[1], '_bytes') or most) < most then
  local values = redis.call('HMGET', KEYS[1], unpack(keys))
  for i, key in ipairs(keys) do
    answer[2 * i], answer[2 * i + 1] = key, values[i]
  end
  return answer
end
local bytes = 0
for i, key in ipairs(keys) do
  if bytes >= most then break end
  local value = redis.call('HGET', KEYS[1], key)
  answer[2 * i], answer[2 * i + 1] = key, value
  bytes = bytes + #value
end
return answer
""")


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
