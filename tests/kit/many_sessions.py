"""A project with as many sessions as you like, written straight into its index."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from homewire.sessions.models import ClientInfo
from homewire.store.keys import ProjectSlot
from homewire.timestamps import timestamp
from kit.tenant import Tenant

AGENTS: Final = ("curl/8.5.0", "Wget/1.21.4", "")
DEVICES: Final = ("curl", "Wget", "")
PAGE: Final = 500


@dataclasses.dataclass(frozen=True)
class ManySessions:
    """Many sessions: what an answer has of each, in the order in which they started."""

    tenant: Tenant
    key: str
    """Of the project; it may read."""
    shown: list[dict[str, Any]]


async def many_sessions_of(
    tenant: Tenant, key: str, count: int, users: int, padding: int = 0
) -> ManySessions:
    """`count` sessions of `users` users, in apps whose names have `padding` characters too many.

    They are copies of one that was opened as usual, so that nothing is missing in them.
    """
    slot = ProjectSlot(tenant.project)
    names = await _users(tenant, users)
    user_ids = sorted(names)
    real, _ = await tenant.store.sessions.open(tenant.project, user_ids[0], "app", ClientInfo())
    record: Any = await tenant.redis.hgetall(slot.session(real.id))
    await tenant.store.sessions.end(tenant.project, real.id)
    shown = []
    for start in range(0, count, PAGE):
        async with tenant.redis.pipeline(transaction=False) as pipeline:
            for number in range(start, min(start + PAGE, count)):
                session_id, started = f"{number:024x}", real.started_ms - (count - number) * 7
                user, place = user_ids[number * 31 % users], number % 3
                own: dict[str, str | int] = {
                    "user": user, "app": f"app-{number % 11}" + "." * padding, "user_agent": AGENTS[place],
                    "started": started, "last_access": started + number % 5,
                    "version": 1 + number * 7919 % 101,
                }  # fmt: skip
                pipeline.hset(slot.session(session_id), mapping=record | own)
                pipeline.zadd(slot.sessions, {session_id: started})
                shown.append(
                    {
                        "sessionId": session_id,
                        "identity": {
                            "userName": names[user],
                            "deviceName": DEVICES[place],
                            "envName": own["app"],
                            "authenticationType": "Bearer",
                        },
                        "startedAt": timestamp(started),
                        "expiresAt": timestamp(real.expires_ms),
                        "lastAccessAt": timestamp(started + number % 5),
                        "_v": own["version"],
                    }
                )
            await pipeline.execute()
    return ManySessions(tenant, key, shown)


async def _users(tenant: Tenant, count: int) -> dict[int, str]:
    """Users' ids, and what they are named by."""
    made = [
        await tenant.store.users.create(tenant.project, "user", email=f"{number:04}@example.com")
        for number in range(count)
    ]
    return {user.id: str(user.email) for user in made}
