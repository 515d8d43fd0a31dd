"""Messages that are kept, because the node has no sender: sealed, bounded, and readable with one key only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from homewire.errors import ConfigurationError, Unavailable
from homewire.messages import queue as room
from homewire.messages.models import Channel, Message, MessageKind
from homewire.messages.queue import MessageOutbox, QueuedMessage, stored_messages
from homewire.sealing import Sealer
from homewire.settings import Settings
from homewire.store.keys import MESSAGES_KEPT, message_queue, messages_waiting
from kit.mailbox import BASE, PostOffice
from kit.tenant import StoredProject, new_project

TOKEN = "v1.7.a-secret_token"
CODE = "483920"


@pytest_asyncio.fixture
async def tenant(redis_client: Redis) -> StoredProject:
    await redis_client.delete(MESSAGES_KEPT)
    return await new_project(redis_client)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory of its own, and so a secret of its own."""
    return tmp_path


def sealer(directory: Path) -> Sealer:
    return Sealer.of(Settings(data_dir=directory))


def office(directory: Path, tenant: StoredProject) -> PostOffice:
    """The outbox of a node without senders."""
    return PostOffice(directory, tenant, channels=())


async def test_nothing_of_a_message_can_be_read_in_redis(directory: Path, tenant: StoredProject) -> None:
    await office(directory, tenant).send(
        Message(tenant.project, MessageKind.EMAIL_VERIFICATION, "eve@example.com", token=TOKEN)
    )
    entries: Any = await tenant.redis.xrange(MESSAGES_KEPT)
    stored = b"".join(value for _, fields in entries for value in fields.values())
    assert stored
    assert TOKEN.encode() not in stored
    assert b"eve@example.com" not in stored
    # A command without the deployment's secret says so, and does not crash.
    with pytest.raises(ConfigurationError, match="HOMEWIRE_SECRET_KEY"):
        await stored_messages(tenant.redis, Sealer("another secret of this deployment", Path("unused")))


async def test_message_sealed_elsewhere_hides_no_other(directory: Path, tenant: StoredProject) -> None:
    foreign = Sealer("the secret of another directory", Path("unused"))
    await office(directory, tenant).send(
        Message(tenant.project, MessageKind.SIGN_IN_CODE, "+14155550100", code="1")
    )
    queued = QueuedMessage.new(
        Message(tenant.project, MessageKind.SIGN_IN_CODE, "+14155550101", code="2"), "http://other"
    )
    await tenant.redis.xadd(MESSAGES_KEPT, {"m": queued.sealed(foreign), "c": 1})
    shown = await stored_messages(tenant.redis, sealer(directory))
    assert [each.queued.message.to for each in shown] == ["+14155550100"]


async def test_oldest_go_and_all_go_in_the_end(
    directory: Path, tenant: StoredProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_STORED", 3)
    post = office(directory, tenant)
    for number in range(5):
        await post.send(
            Message(tenant.project, MessageKind.INVITATION, f"{number}@example.com", home_name="x")
        )
    kept = [each.queued.message.to for each in await stored_messages(tenant.redis, sealer(directory))]
    assert kept == [f"{number}@example.com" for number in (2, 3, 4)]
    assert 0 < await tenant.redis.pttl(MESSAGES_KEPT) <= room.STORED_MS


async def test_where_too_many_wait_none_is_taken(
    directory: Path, tenant: StoredProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages before their first try, and messages that wait for another one."""
    monkeypatch.setattr(room, "QUEUED", 2)
    queue, waiting = message_queue(Channel.MAIL), messages_waiting(Channel.MAIL)
    carrying = MessageOutbox(tenant.redis, sealer(directory), BASE, [Channel.MAIL])
    try:
        await tenant.redis.xadd(queue, {"m": "one"})
        await carrying.require_room(MessageKind.INVITATION)
        await tenant.redis.zadd(waiting, {"another": 1})
        with pytest.raises(Unavailable):
            await carrying.require_room(MessageKind.INVITATION)
        # Only messages of channels with a sender count.
        await carrying.require_room(MessageKind.SIGN_IN_CODE)
    finally:
        await tenant.redis.delete(queue, waiting)
