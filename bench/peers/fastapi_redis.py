"""The same reads as anybody would write them: FastAPI and redis-py on uvicorn, one worker.

`GET /devices/{id}` with a user's key: the key, the device, the membership, each a command of its own.
It reads homewire's records. The first argument is the URL of the Redis, the second the project's id.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Header, HTTPException
from pydantic import BaseModel
from redis.asyncio import Redis

from bench.servers import free_port
from homewire.store.keys import ProjectSlot

app = FastAPI()
redis = Redis.from_url(sys.argv[1])
slot = ProjectSlot(int(sys.argv[2]))


class Device(BaseModel):
    """The answer."""

    id: int
    projectId: int
    creationTime: int
    name: str
    tag: str
    deviceClass: str
    homeId: int


@app.get("/devices/{device_id}")
async def device(device_id: int, authorization: Annotated[str, Header()]) -> Device:
    """A device that the user may see."""
    token = authorization.partition(" ")[2]
    key: dict[bytes, bytes] = await _hash(slot.key(hashlib.sha256(token.encode()).hexdigest()))
    if key.get(b"kind") != b"user":
        raise HTTPException(401)
    record = await _hash(slot.device(device_id))
    if not record:
        raise HTTPException(404)
    home = int(record[b"home"])
    if await redis.zscore(slot.user_homes(int(key[b"id"])), home) is None:
        raise HTTPException(404)
    return Device(
        id=device_id,
        projectId=slot.project_id,
        creationTime=int(record[b"created"]),
        name=record[b"name"].decode(),
        tag=record[b"tag"].decode(),
        deviceClass=record[b"class"].decode(),
        homeId=home,
    )


async def _hash(name: str) -> dict[bytes, bytes]:
    found: Any = await redis.hgetall(name)
    return dict(found)


def main() -> None:
    """Serve until SIGTERM."""
    port = free_port()
    print(f"listening {port}", flush=True)
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="error")


if __name__ == "__main__":
    main()
