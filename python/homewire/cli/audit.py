"""The audit trail of the command line: which command changed what, by whom. It never holds a secret."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from homewire.cli.output import complain
from homewire.errors import HomewireError, UnknownRecord

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

RECORDS: Final = 10_000
"""Approximate maximum of stored records; the oldest are deleted."""
_PAGE: Final = 1_000
_IDS: Final = {
    "project": "projectId",
    "home": "homeId",
    "user": "userId",
    "device": "deviceId",
    "group": "groupId",
    "app_id": "appId",
    "module_id": "moduleId",
    "key_id": "projectKeyId",
    "session_id": "sessionId",
}
"""Options that are ids, and their names in answers. No other option or member is recorded."""
_ID_CHARACTERS: Final = 128


async def audited(redis: Redis, command: str, options: Mapping[str, Any], change: Awaitable[T]) -> T:
    """Run `change` and write an audit record, also if the change was refused. Returns its answer.

    A usage error or an interrupted command changes nothing and writes no record.
    """
    given = {_IDS[name]: options[name] for name in _IDS if name in options}
    try:
        answer = await change
    except HomewireError as error:
        fallback = "NOT_FOUND" if isinstance(error, UnknownRecord) else type(error).__name__
        await _record(redis, command, getattr(error, "reason", fallback), given)
        raise
    made = answer if isinstance(answer, dict) else {}
    ids = {name: made[name] for name in _IDS.values() if name in made}
    await _record(redis, command, "ok", given | ids)
    return answer


async def read_records(redis: Redis, count: int) -> list[dict[str, str]]:
    """The latest `count` records, newest last."""
    from homewire.store.keys import COMMANDS_AUDITED
    from homewire.timestamps import timestamp

    found: list[dict[str, str]] = []
    before = "+"
    while len(found) < count:
        page: Any = await redis.xrevrange(COMMANDS_AUDITED, max=before, count=min(_PAGE, count - len(found)))
        for entry, fields in page:
            at = {"at": timestamp(int(entry.split(b"-")[0]))}
            found.append(at | {_text(name): _text(value) for name, value in fields.items()})
        if not page:
            break
        before = f"({page[-1][0].decode()}"
    return found[::-1]


async def _record(redis: Redis, command: str, outcome: str, ids: Mapping[str, Any]) -> None:
    """Write a record. A failure is reported and does not undo the change."""
    from redis.exceptions import RedisError

    from homewire.store.keys import COMMANDS_AUDITED

    shown = [f"{name}={ids[name]}"[:_ID_CHARACTERS] for name in _IDS.values() if ids.get(name) is not None]
    fields: dict[Any, Any] = {
        "user": _user(),
        "host": socket.gethostname(),
        "command": command,
        "outcome": outcome,
        "ids": " ".join(shown),
    }
    try:
        await redis.xadd(COMMANDS_AUDITED, fields, maxlen=RECORDS)
    except (RedisError, OSError, HomewireError) as error:
        complain(f"the audit record of this command could not be written ({type(error).__name__})")


def _user() -> str:
    """The name or number of the process's user. Environment variables are not trusted."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
