"""What nodes keep in Redis outside of a project, for tests that read or damage it."""

from __future__ import annotations

from typing import Any, Final

import orjson

from homewire._core import event_envelope, event_json, parse_event
from homewire._core import shard_of as shard_of_home
from homewire.bus.shards import epoch_key as epoch_key
from homewire.bus.shards import events_key as events_key
from homewire.store.keys import DELETED_PROJECTS as DELETED_PROJECTS
from homewire.store.keys import MESSAGES_KEPT as MESSAGES_KEPT
from homewire.store.keys import MODULES_WAITING as MODULES_WAITING
from homewire.store.keys import NODES as NODES
from homewire.store.keys import PATROLLED as PATROLLED
from homewire.store.keys import PROJECTS as PROJECTS
from homewire.store.keys import UNFINISHED as UNFINISHED
from homewire.webhooks.store import GROUP
from kit.clock import now_ms

SHARDS: Final = 64
WEBHOOK_READERS: Final = GROUP
"""The group of readers of the streams that finds what smart modules receive."""


def shard_of(subject: int) -> int:
    """The shard of a home's events, or of a user's control records."""
    return shard_of_home(subject, SHARDS)


def stream_of(home: int) -> bytes:
    """The stream with the events of a home."""
    return events_key(shard_of(home))


def epoch_of(home: int) -> bytes:
    """Where the epoch of that stream is."""
    return epoch_key(shard_of(home))


def envelope(
    event: dict[str, Any], project: int, home: int, *, key_id: int = 0, key_name: str | None = None
) -> bytes:
    """An event of a home as it is stored, sent now by a project key if one is given."""
    parsed = parse_event(orjson.dumps(event))
    return event_envelope(parsed, project, home, 0, now_ms(), None, None, key_id, key_name)


def event_of(stored: bytes) -> Any:
    """The event of a stored envelope, as it is delivered; empty for anything else."""
    return orjson.loads(event_json(stored) or b"{}")
