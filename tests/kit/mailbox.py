"""Receivers of messages: an SMTP server process, and a gateway for SMS."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from homewire.access_changes.relay import Relay
from homewire.messages.models import Channel, MessageKind
from homewire.messages.models import Message as Message
from homewire.messages.queue import MessageOutbox
from homewire.sealing import Sealer
from homewire.settings import Settings
from homewire.store.keys import ProjectSlot, message_queue, messages_waiting
from kit import certificates, smtp_server
from kit.node import eventually, reserved_port
from kit.tenant import StoredProject, Tenant

BASE = "https://home.example.com"
TOKEN = "v1.7.a-secret_token"
ARRIVAL_S = 15.0


@dataclass
class PostOffice:
    """The message outbox of a node that has senders for these channels."""

    data_dir: Path
    tenant: StoredProject
    channels: Sequence[Channel] = tuple(Channel)

    async def send(self, message: Message) -> None:
        """Queue a message as a change of the store does."""
        sealer, redis = Sealer.of(Settings(data_dir=self.data_dir)), self.tenant.redis
        outbox_messages = MessageOutbox(redis, sealer, BASE, self.channels)
        await outbox_messages.require_room(message.kind)
        prepared = outbox_messages.prepare(message)
        outbox = ProjectSlot(message.project_id).outbox
        await redis.xadd(outbox, {"t": 0, "q": prepared.queue.value, "m": prepared.sealed})
        await Relay(redis, 64).announce(message.project_id)


async def all_sent(tenant: Tenant) -> None:
    """Wait until no message is under way, so that none comes again in another test."""

    async def sent() -> bool:
        left = 0
        for channel in Channel:
            left += await tenant.redis.xlen(message_queue(channel))
            left += await tenant.redis.zcard(messages_waiting(channel))
        return left == 0

    await eventually(sent)


def message(tenant: StoredProject, kind: str, to: str, **members: Any) -> Message:
    """A message to a user; `kind` as `homewire messages` shows it."""
    return Message(tenant.project, MessageKind(kind), to, **members)


def queue_of_mails() -> str:
    """The stream of mails that wait for their first try."""
    return message_queue(Channel.MAIL)


def mails_to_retry() -> str:
    """The sorted set of mails that wait for another try."""
    return messages_waiting(Channel.MAIL)


def verification(tenant: Tenant, to: str) -> Message:
    """A mail with a token."""
    return Message(tenant.project, MessageKind.EMAIL_VERIFICATION, to, token=TOKEN)


class MailServer:
    """The process `smtp_server.py`, which can go away and come back."""

    def __init__(self, port: int, mode: str = "starttls") -> None:
        self.port = port
        self.mode = mode
        self._process: asyncio.subprocess.Process | None = None

    def settings(self) -> dict[str, Any]:
        """Those of a node that sends through this server."""
        chosen: dict[str, Any] = {
            "smtp_host": certificates.HOST,
            "smtp_port": self.port,
            "smtp_tls": self.mode,
            "smtp_from": "Homewire <home@example.com>",
            "smtp_ca": certificates.authority_file(),
        }
        if self.mode != "none":
            chosen |= {"smtp_user": smtp_server.USER, "smtp_password": smtp_server.PASSWORD}
        return chosen

    async def start(self) -> None:
        script = Path(smtp_server.__file__)
        words = (str(script), str(self.port), self.mode, *map(str, certificates.files()))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, limit=2**20
        )
        assert await self.said() == {"ready": self.port}

    async def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    async def said(self, within: float = ARRIVAL_S) -> dict[str, Any]:
        """What the server says next: which recipient it refused, or a mail."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), within)
        said: dict[str, Any] = orjson.loads(line)
        return said

    async def mail(self, within: float = ARRIVAL_S) -> tuple[dict[str, Any], EmailMessage]:
        """The next mail: its envelope, and what it says."""
        said = await self.said(within)
        return said, parsed(said["content"])


def parsed(content: str) -> EmailMessage:
    """A mail as a mail program reads it."""
    mail = message_from_bytes(content.encode(), policy=policy.default)
    assert isinstance(mail, EmailMessage)
    assert not mail.defects
    return mail


def part(mail: EmailMessage, kind: str) -> str:
    """The plain or the html part of a mail."""
    body = mail.get_body((kind,))
    assert isinstance(body, EmailMessage)
    return str(body.get_content())


@asynccontextmanager
async def mail_server(mode: str = "starttls", port: int | None = None) -> AsyncIterator[MailServer]:
    """A server that runs; `port` is one that was reserved, which it goes away from and comes back to."""
    with reserved_port() as own:
        server = MailServer(port or own, mode)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@dataclass
class SmsGateway:
    """Takes what is posted to it; `answers` are the statuses of the next posts, then 204."""

    url: str = ""
    key: str = "a key of the SMS gateway"
    answers: list[int] = field(default_factory=list)
    posts: asyncio.Queue[web.Request] = field(default_factory=asyncio.Queue)

    def settings(self) -> dict[str, Any]:
        return {"sms_url": self.url, "sms_key": self.key}

    async def post(self) -> tuple[dict[str, str], dict[str, Any]]:
        """Headers and body of the next post, whose signature must be right."""
        request = await asyncio.wait_for(self.posts.get(), ARRIVAL_S)
        body = await request.read()
        signed = request.headers["X-Homewire-Timestamp"].encode() + body
        right = hmac.new(self.key.encode(), signed, hashlib.sha256).hexdigest()
        assert request.headers["X-Homewire-Signature"] == right
        return dict(request.headers), orjson.loads(body)

    async def take(self, request: web.Request) -> web.Response:
        await request.read()
        await self.posts.put(request)
        return web.Response(status=self.answers.pop(0) if self.answers else 204)


@asynccontextmanager
async def sms_gateway(port: int = 0) -> AsyncIterator[SmsGateway]:
    """A gateway that listens."""
    gateway = SmsGateway()
    app = web.Application()
    app.router.add_post("/sms", gateway.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, port = runner.addresses[0][:2]
    gateway.url = f"http://{host}:{port}/sms"
    try:
        yield gateway
    finally:
        await runner.cleanup()
