"""Which devices are connected: the record in the project's slot, and the leases of the nodes it names.

`presence/store.py` says what is in a record. A device is connected while at least one node holds a
command WebSocket of it; its `_deviceConnected_` event is sent by the step that writes the first holder
into the record, and `_deviceDisconnected_` by the one that takes out the last. So both come once, and by
turns, whoever holds the device meanwhile, and however many nodes announce what a dead one left.

Scripts of who is connected. See `script.py` for what they answer.

A record (`slot.device_presence`) says by a field `@<boot id>` which nodes hold command sockets of the
device, by `holders` how many nodes that are, and by `words` the number of the last word of each node that
changed it, for the nodes that did so last. A node numbers its words: one that comes late, behind a newer one
of the same node, changes nothing, whatever other nodes wrote meanwhile.

They take many devices at once. For each that could not be changed the answer has its id and why, behind
`partly`: `unknown`, or `moved` when it is not in the home any more that the event was made for.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

from homewire._core import event_envelope, parse_event
from homewire.devices.models import DevicePresence
from homewire.errors import Unavailable
from homewire.presence.nodes import Nodes
from homewire.store.database import ATTEMPTS, Argument, Database
from homewire.store.keys import ProjectSlot
from homewire.store.script import Script, changing, removing

HOLDER: Final = "@"
"""A field of this prefix and a boot id stands in the record while that node holds a socket of the device."""
CHUNK: Final = 200
"""Records read in one round trip: others wait no longer than for so many."""
MOST_WORDS: Final = 100
"""Devices in one script, which touches ten elements for each at most."""
DEAD: Final = 0
"""The generation of what is said about a node that is dead, by somebody else."""
# The specification gives them no event data, so they have none.
_CONNECTED: Final = parse_event(b'{"eventType":"_deviceConnected_"}')
_DISCONNECTED: Final = parse_event(b'{"eventType":"_deviceDisconnected_"}')


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """What a node has to say about one device: it holds it from this time (ms) on, or no more."""

    device_id: int
    holds: bool
    generation: int
    """Counted up by each node from 1 on: a later word holds."""
    time_ms: int


class Presence:
    """Who is connected."""

    def __init__(self, database: Database, nodes: Nodes) -> None:
        self._database = database
        self._nodes = nodes

    async def of(self, project_id: int, device_ids: Sequence[int]) -> dict[int, DevicePresence]:
        """The presence of each of these devices; of one that never connected, or is unknown, the empty one.

        A device is connected while the record says so of a node whose lease lives: what a node that was
        killed left behind stops counting with its lease, before anybody tidied up.
        """
        slot, found = ProjectSlot(project_id), dict[int, DevicePresence]()
        for start in range(0, len(device_ids), CHUNK):
            page = device_ids[start : start + CHUNK]
            records = await self._database.read_hashes([slot.device_presence(each) for each in page])
            living = await self._nodes.living(_holders(*records))
            found.update(
                (each, _presence(record, living)) for each, record in zip(page, records, strict=True)
            )
        return found

    async def by_record(self, record: dict[str, str]) -> DevicePresence:
        """The presence of a device whose record was read already (`Devices.look_at`)."""
        return _presence(record, await self._nodes.living(_holders(record)))

    async def say(self, project_id: int, boot_id: str, words: Sequence[PresenceChange]) -> None:
        """Write down what a node has to say about devices of a project, and tell their homes.

        At most `MOST_WORDS`, all of the same kind, one for each device. Of what is repeated, and of devices
        that exist no more, nothing comes. Raises Unavailable, NotConfirmed: to be said again.
        """
        script = JOIN if words[0].holds else LEAVE
        for _ in range(ATTEMPTS):
            answer = await self._say_once(ProjectSlot(project_id), script, boot_id, words)
            if answer[0] != "partly":
                return
            moved = {
                int(each) for each, why in zip(answer[1::2], answer[2::2], strict=True) if why == "moved"
            }
            words = [word for word in words if word.device_id in moved]
            if not words:
                return
        raise Unavailable

    async def held_by(self, project_id: int, boot_id: str) -> list[int]:
        """Some of the devices that a node holds by the records, at most `MOST_WORDS`."""
        index = ProjectSlot(project_id).held_devices(boot_id)
        return [int(each) for each in await self._database.read("ZRANGE", index, 0, MOST_WORDS - 1)]

    async def _say_once(
        self, slot: ProjectSlot, script: Script, boot_id: str, words: Sequence[PresenceChange]
    ) -> list[str]:
        places = await self._database.read("HMGET", slot.device_places, *(word.device_id for word in words))
        keys, arguments = [slot.held_devices(boot_id)], list[Argument]([boot_id])
        for word, place in zip(words, places, strict=True):
            # The home that the record names, also if it is being deleted: nobody hears of that one.
            home, _, device_class = (place or b"0 ").decode().partition(" ")
            # That of home 0, which is none, is named and never there.
            keys += [slot.device(word.device_id), slot.device_presence(word.device_id), slot.home(int(home))]
            arguments += [word.device_id, word.generation, word.time_ms, home]
            arguments.append(_event(slot.project_id, int(home), word, device_class))
        return await self._database.change(script, slot, keys, arguments)


def _event(project_id: int, home_id: int, word: PresenceChange, device_class: str) -> bytes:
    happened = _CONNECTED if word.holds else _DISCONNECTED
    return event_envelope(
        happened, project_id, home_id, word.device_id, word.time_ms, device_class, None, 0, None
    )


def _holders(*records: dict[str, str]) -> set[str]:
    """The boot ids of the nodes that hold one of these devices, as the records say."""
    return {name.removeprefix(HOLDER) for record in records for name in record if name.startswith(HOLDER)}


def _presence(record: dict[str, str], living: Set[str]) -> DevicePresence:
    came, went = record.get("connected"), record.get("disconnected")
    return DevicePresence(
        not living.isdisjoint(_holders(record)),
        int(came) if came else None,
        int(went) if went else None,
    )


NODES_KEPT: Final = 8
"""Nodes whose last word about a device is known. A word is late by seconds: no device changes nodes so often
in that time."""

_ONE: Final = f"""
local boot, refused = ARGV[1], {{'partly'}}
-- The last word of each node, latest first: `,<boot id>:<generation>` for each.
local function last_word(presence)
  local words = redis.call('HGET', presence, 'words') or ''
  local from, to, generation = string.find(words, ',' .. boot .. ':(%d+)')
  return words, from, to, tonumber(generation or 0)
end
local function note_word(presence, generation)
  local words, from, to = last_word(presence)
  if from then words = string.sub(words, 1, from - 1) .. string.sub(words, to + 1) end
  words = ',' .. boot .. ':' .. generation .. words
  local _, count = string.gsub(words, ',', '')
  if count > {NODES_KEPT} then words = string.match(words, '^(.*),') end
  redis.call('HSET', presence, 'words', words)
end
-- A home that is deactivated hears nothing.
local function tell(home, id, event)
  if id ~= '0' and not is_deactivated(home) then publish_event(id, event) end
end
-- Whether this word about a device may be taken: it exists, is in this home, and said nothing newer.
local function is_due(place, presence, id, generation, home)
  local now_in = redis.call('HGET', place, 'home')
  if not now_in or now_in ~= home then
    refused[#refused + 1] = id
    refused[#refused + 1] = now_in and 'moved' or 'unknown'
    return false
  end
  local _, _, _, last = last_word(presence)
  return last < tonumber(generation)
end
"""

JOIN: Final = changing(
    f"""{_ONE}
-- KEYS: …, devices held by the node, then of each device: device, presence, home
-- ARGV: boot id, then of each device: id, generation, time, home or 0, event
for i = 0, (#KEYS - 3) / 3 - 1 do
  local id, generation, time, home, event = unpack(ARGV, 5 * i + 2, 5 * i + 6)
  local presence = KEYS[3 * i + 5]
  if is_due(KEYS[3 * i + 4], presence, id, generation, home) then
    note_word(presence, generation)
    if redis.call('HSETNX', presence, '@' .. boot, generation) == 1 then
      redis.call('ZADD', KEYS[3], id, id)
      if redis.call('HINCRBY', presence, 'holders', 1) == 1 then
        redis.call('HSET', presence, 'connected', time)
        tell(KEYS[3 * i + 6], home, event)
      end
    end
  end
end
if #refused > 1 then return refused end
return unannounced('devices_connected')
""",
    sends=True,
)

LEAVE: Final = removing(
    f"""{_ONE}
-- The same. With the generation 0 it is somebody else's word: the node is dead.
for i = 0, (#KEYS - 3) / 3 - 1 do
  local id, generation, time, home, event = unpack(ARGV, 5 * i + 2, 5 * i + 6)
  local presence = KEYS[3 * i + 5]
  local is_dead = generation == '0'
  if is_due(KEYS[3 * i + 4], presence, id, is_dead and '1e15' or generation, home) then
    if redis.call('HDEL', presence, '@' .. boot) == 1 then
      note_word(presence, is_dead and '1000000000000000' or generation)
      if redis.call('HINCRBY', presence, 'holders', -1) == 0 then
        redis.call('HSET', presence, 'disconnected', time)
        tell(KEYS[3 * i + 6], home, event)
      end
    end
    redis.call('ZREM', KEYS[3], id)
  elseif redis.call('EXISTS', KEYS[3 * i + 4]) == 0 then
    redis.call('UNLINK', presence)
    redis.call('ZREM', KEYS[3], id)
  end
end
if #refused > 1 then return refused end
return unannounced('devices_disconnected')
""",
    sends=True,
)
