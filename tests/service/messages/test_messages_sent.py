"""Messages to people on their way out of a node: tried again, given up, and lost by no kill."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from kit.clock import now_ms
from kit.mailbox import (
    BASE,
    TOKEN,
    MailServer,
    Message,
    PostOffice,
    SmsGateway,
    all_sent,
    mail_server,
    mails_to_retry,
    message,
    part,
    queue_of_mails,
    sms_gateway,
    verification,
)
from kit.node import NodeProcess, private_node, reserved_port
from kit.tenant import Tenant, tenant_of

CODE = "483920"


def code(tenant: Tenant, to: str = "+14155550123") -> Message:
    return message(tenant, "signInCode", to, code=CODE)


@dataclass
class MessageServers:
    """A node, and who it sends to."""

    node: NodeProcess
    tenant: Tenant
    mails: MailServer
    sms: SmsGateway

    @property
    def post(self) -> PostOffice:
        return PostOffice(self.node.data_dir, self.tenant)


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[NodeProcess, int, int]]:
    """One node for the whole file, and the ports it sends to: who listens there comes and goes."""
    with reserved_port() as smtp, reserved_port() as sms:
        chosen = {**MailServer(smtp).settings(), **SmsGateway(f"http://127.0.0.1:{sms}/sms").settings()}
        with private_node(**chosen, message_tries=3, message_backoff_s=0.1) as node:
            yield node, smtp, sms


@pytest_asyncio.fixture
async def servers(ports: tuple[NodeProcess, int, int]) -> AsyncIterator[MessageServers]:
    node, smtp, sms = ports
    async with tenant_of(node) as tenant, mail_server(port=smtp) as mails, sms_gateway(sms) as gateway:
        yield MessageServers(node, tenant, mails, gateway)
        await all_sent(tenant)


async def test_mail_goes_out_and_leaves_nothing_behind(servers: MessageServers) -> None:
    before = (await servers.node.metrics())["mail_sent_total"]
    await servers.post.send(verification(servers.tenant, "ann@example.com"))
    envelope, mail = await servers.mails.mail()
    assert envelope["to"] == "ann@example.com"
    assert f"{BASE}/verifyEmail#token={TOKEN}" in part(mail, "plain").split()
    await servers.node.until("mail_sent_total", before + 1)
    await all_sent(servers.tenant)
    assert TOKEN not in servers.node.logged()


async def test_server_that_is_away_is_waited_for() -> None:
    """For as many tries as there are without settings: a server takes its time to come back."""
    async with mail_server() as mails:
        with private_node(**mails.settings(), message_backoff_s=0.1) as node:
            async with tenant_of(node) as tenant:
                await mails.stop()
                await PostOffice(node.data_dir, tenant).send(verification(tenant, "ben@example.com"))
                await node.reaches("mail_failed_total", 1)
                await mails.start()
                envelope, _ = await mails.mail()
                assert envelope["to"] == "ben@example.com"
                await all_sent(tenant)


async def test_mail_turned_away_for_now_comes_again_as_the_same_mail(servers: MessageServers) -> None:
    await servers.post.send(verification(servers.tenant, "later-cat@example.com"))
    assert await servers.mails.said() == {"turnedAway": "later-cat@example.com"}
    assert await servers.mails.said() == {"turnedAway": "later-cat@example.com"}
    envelope, mail = await servers.mails.mail()
    assert envelope["to"] == "later-cat@example.com"
    assert mail["Message-ID"].endswith("@example.com>")


async def test_permanent_refusal_makes_dead_letter_at_once(servers: MessageServers) -> None:
    before = (await servers.node.metrics())["mail_dead_letters_total"]
    await servers.post.send(verification(servers.tenant, "refused-dan@example.com"))
    await servers.node.until("mail_dead_letters_total", before + 1)
    (dead,) = await servers.node.outbox("--dead", "--project", servers.tenant.project)
    assert dead.pop("createdAt")
    assert dead == {
        "project": servers.tenant.project,
        "to": "refused-dan@example.com",
        "kind": "emailVerification",
        "problem": "recipient refused: 550",
    }
    log = servers.node.logged()
    assert "a message became a dead letter" in log
    assert "refused-dan" not in log
    assert TOKEN not in log


async def test_message_to_unknown_user_is_queued_and_dropped(servers: MessageServers) -> None:
    before = await servers.node.metrics()
    await servers.post.send(verification(servers.tenant, ""))
    await servers.post.send(verification(servers.tenant, "eva@example.com"))
    envelope, _ = await servers.mails.mail()
    assert envelope["to"] == "eva@example.com"
    await all_sent(servers.tenant)
    after = await servers.node.metrics()
    assert after["mail_sent_total"] == before["mail_sent_total"] + 1
    assert after["mail_dead_letters_total"] == before["mail_dead_letters_total"]


async def test_foreign_entry_in_queue_blocks_no_message(
    servers: MessageServers,
) -> None:
    before = (await servers.node.metrics())["mail_malformed_total"]
    queue, redis = queue_of_mails(), servers.tenant.redis
    garbage: list[dict[Any, Any]] = [
        {"x": "y"}, {"m": b"\xff", "n": 0, "c": 0}, {"m": "sealed", "n": "few", "c": 0}, {"m": "no times"}
    ]  # fmt: skip
    for fields in garbage:
        await redis.xadd(queue, fields)
    await redis.zadd(mails_to_retry(), {"no letter": 0})
    await servers.post.send(verification(servers.tenant, "fay@example.com"))
    envelope, _ = await servers.mails.mail()
    assert envelope["to"] == "fay@example.com"
    await servers.node.until("mail_malformed_total", before + len(garbage))
    assert servers.node.logged().count("messages.malformed") == 1


async def test_sms_is_posted_signed(servers: MessageServers) -> None:
    await servers.post.send(code(servers.tenant))
    _, body = await servers.sms.post()
    assert body == {
        "to": "+14155550123",
        "text": f"{CODE} is your code to sign in to test.",
        "kind": "signInCode",
        "projectId": servers.tenant.project,
    }


async def test_code_that_expired_is_sent_no_more(servers: MessageServers) -> None:
    """And is no dead message either."""
    before, now = await servers.node.metrics(), now_ms()
    await servers.post.send(replace(code(servers.tenant, "+14155550124"), good_until_ms=now - 1))
    await servers.node.until("sms_expired_total", before["sms_expired_total"] + 1)
    await servers.post.send(replace(code(servers.tenant, "+14155550125"), good_until_ms=now + 60_000))
    assert (await servers.sms.post())[1]["to"] == "+14155550125"
    await all_sent(servers.tenant)
    assert servers.sms.posts.empty()
    assert (await servers.node.metrics())["sms_dead_letters_total"] == before["sms_dead_letters_total"]


async def test_sms_is_retried_with_same_id(servers: MessageServers) -> None:
    servers.sms.answers[:] = [500, 302]
    await servers.post.send(code(servers.tenant))
    ids = {(await servers.sms.post())[0]["X-Homewire-Message-Id"] for _ in range(3)}
    assert len(ids) == 1
    before = (await servers.node.metrics())["sms_dead_letters_total"]
    servers.sms.answers[:] = [422]
    await servers.post.send(code(servers.tenant))
    headers, _ = await servers.sms.post()
    assert headers["X-Homewire-Message-Id"] not in ids
    await servers.node.until("sms_dead_letters_total", before + 1)
    servers.sms.answers[:] = [503] * 3
    await servers.post.send(code(servers.tenant))
    for _ in range(3):
        await servers.sms.post()
    await servers.node.until("sms_dead_letters_total", before + 2)
    assert servers.sms.posts.empty()
