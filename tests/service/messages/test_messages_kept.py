"""Messages to people that nothing is set to send: kept, sealed, and shown by `homewire messages`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from homewire.errors import ConfigurationError, Unavailable
from homewire.messages import queue as room
from homewire.messages.models import Channel, Message, MessageKind
from homewire.messages.queue import MessageOutbox, QueuedMessage, stored_messages
from homewire.sealing import Sealer
from homewire.settings import Settings
from homewire.store.keys import MESSAGES_KEPT, message_queue, messages_waiting
from kit.mailbox import BASE, PostOffice
from kit.node import NodeProcess
from kit.tenant import Tenant

TOKEN = "v1.7.a-secret_token"
CODE = "483920"


def sealer(node: NodeProcess) -> Sealer:
    return Sealer.of(Settings(data_dir=node.data_dir))


def post(node: NodeProcess, tenant: Tenant) -> PostOffice:
    """As the node has one."""
    return PostOffice(node, tenant, channels=())


async def test_kept_messages_are_shown_with_their_secrets(node: NodeProcess, tenant: Tenant) -> None:
    office = post(node, tenant)
    project = tenant.project
    await office.send(Message(project, MessageKind.EMAIL_VERIFICATION, "ann@example.com", token=TOKEN))
    await office.send(Message(project, MessageKind.PASSWORD_RESET, "ann@example.com", token=TOKEN))
    await office.send(Message(project, MessageKind.INVITATION, "bob@example.com", home_name="Sea view"))
    await office.send(Message(project, MessageKind.SIGN_IN_CODE, "+14155550123", code=CODE))
    await office.send(Message(project, MessageKind.SIGN_IN_CODE, "", code=CODE))
    selected = await node.outbox("--project", project)
    assert all(line.pop("createdAt").endswith("Z") for line in selected)
    assert selected == [
        {
            "project": project,
            "to": "ann@example.com",
            "kind": "emailVerification",
            "token": TOKEN,
            "url": f"{BASE}/verifyEmail#token={TOKEN}",
        },
        {
            "project": project,
            "to": "ann@example.com",
            "kind": "passwordReset",
            "token": TOKEN,
            "url": f"{BASE}/resetPassword#token={TOKEN}",
        },
        {"project": project, "to": "bob@example.com", "kind": "invitation", "homeName": "Sea view"},
        {"project": project, "to": "+14155550123", "kind": "signInCode", "code": CODE},
    ]
    (bobs,) = await node.outbox("--to", "bob@example.com", "--project", project)
    assert bobs["kind"] == "invitation"


async def test_nothing_of_a_message_can_be_read_in_redis(node: NodeProcess, tenant: Tenant) -> None:
    await post(node, tenant).send(
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


async def test_malformed_entry_hides_no_message(node: NodeProcess, tenant: Tenant) -> None:
    await tenant.redis.xadd(MESSAGES_KEPT, {"x": "y"})
    await tenant.redis.xadd(MESSAGES_KEPT, {"m": b"\xff", "c": 0})
    await post(node, tenant).send(
        Message(tenant.project, MessageKind.SIGN_IN_CODE, "+14155550124", code=CODE)
    )
    assert len(await node.outbox("--project", tenant.project)) == 1


async def test_message_sealed_elsewhere_hides_no_other(node: NodeProcess, tenant: Tenant) -> None:
    foreign = Sealer("the secret of another directory", Path("unused"))
    await post(node, tenant).send(Message(tenant.project, MessageKind.SIGN_IN_CODE, "+14155550100", code="1"))
    queued = QueuedMessage.new(
        Message(tenant.project, MessageKind.SIGN_IN_CODE, "+14155550101", code="2"), "http://other"
    )
    await tenant.redis.xadd(MESSAGES_KEPT, {"m": queued.sealed(foreign), "c": 1})
    shown = await node.outbox("--project", str(tenant.project))
    assert [each["to"] for each in shown] == ["+14155550100"]


async def test_oldest_go_and_all_go_in_the_end(
    node: NodeProcess, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_STORED", 3)
    office = post(node, tenant)
    for number in range(5):
        await office.send(
            Message(tenant.project, MessageKind.INVITATION, f"{number}@example.com", home_name="x")
        )
    kept = [each.queued.message.to for each in await stored_messages(tenant.redis, sealer(node))]
    assert kept == [f"{number}@example.com" for number in (2, 3, 4)]
    assert 0 < await tenant.redis.pttl(MESSAGES_KEPT) <= room.STORED_MS


async def test_where_too_many_wait_none_is_taken(
    node: NodeProcess, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages before their first try, and messages that wait for another one."""
    monkeypatch.setattr(room, "QUEUED", 2)
    queue, waiting = message_queue(Channel.MAIL), messages_waiting(Channel.MAIL)
    carrying = MessageOutbox(tenant.redis, sealer(node), BASE, [Channel.MAIL])
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


async def test_projects_own_links(node: NodeProcess, tenant: Tenant) -> None:
    await tenant.store.projects.configure(
        tenant.project, verification_url="https://app.example.com/v?t={token}"
    )
    await post(node, tenant).send(
        Message(tenant.project, MessageKind.EMAIL_VERIFICATION, "ann@example.com", token=TOKEN)
    )
    (selected,) = await node.outbox("--project", tenant.project)
    assert selected["url"] == f"https://app.example.com/v?t={TOKEN}"
    assert selected["token"] == TOKEN
