"""Mails against a real SMTP server: TLS modes, what arrives, what can't be smuggled in, what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import pytest_asyncio

from homewire.errors import ConfigurationError, NotSent, Undeliverable
from homewire.messages.models import Message, MessageKind
from homewire.messages.queue import QueuedMessage
from homewire.messages.senders import MailSender
from homewire.projects.models import AccessControl, AccountSystem, Project
from homewire.settings import Settings
from kit.mailbox import MailServer, mail_server, part
from kit.smtp_server import MODES

BASE = "https://home.example.com"
TOKEN = "v1.7.a-secret_token"


def project(name: str = "Sea view", **more: Any) -> Project:
    return Project(7, name, AccountSystem.EMAIL, AccessControl.MEMBERSHIP, False, 0, **more)


def mail_of(
    kind: MessageKind = MessageKind.EMAIL_VERIFICATION, to: str = "ann@example.com", **more: Any
) -> QueuedMessage:
    return QueuedMessage.new(Message(7, kind, to, **{"token": TOKEN, **more}), BASE)


def sender(server: MailServer, **other: Any) -> MailSender:
    return MailSender(Settings(**{**server.settings(), "message_attempt_s": 20.0, **other}))


@pytest_asyncio.fixture
async def plain() -> AsyncIterator[MailServer]:
    async with mail_server("none") as server:
        yield server


@pytest.mark.parametrize("mode", MODES)
async def test_mail_arrives_with_each_kind_of_tls(mode: str) -> None:
    async with mail_server(mode) as server:
        sent = mail_of()
        await sender(server).send(sent, project())
        envelope, mail = await server.mail()
    assert envelope["secure"] is (mode != "none")
    assert envelope["user"] is (mode != "none")
    assert (envelope["from"], envelope["to"]) == ("home@example.com", "ann@example.com")
    assert mail["From"] == "Homewire <home@example.com>"
    assert mail["To"] == "ann@example.com"
    assert mail["Subject"] == "Sea view: confirm your e-mail address"
    assert mail["Message-ID"] == f"<{sent.id}@example.com>"
    assert abs(parsedate_to_datetime(mail["Date"]) - datetime.now(UTC)) < timedelta(minutes=1)
    link = f"{BASE}/verifyEmail#token={TOKEN}"
    assert link in part(mail, "plain").split()
    assert f'href="{link}"' in part(mail, "html")


async def test_server_that_is_not_believed_gets_nothing() -> None:
    async with mail_server() as server:
        with pytest.raises(NotSent) as refusal:
            # Without our authority the public ones are asked.
            await sender(server, smtp_ca=None).send(mail_of(), project())
    assert not isinstance(refusal.value, Undeliverable)


async def test_each_kind_of_mail_has_its_text(plain: MailServer) -> None:
    out = sender(plain)
    own = project(password_reset_url="https://app.example.com/reset?t={token}")
    await out.send(mail_of(MessageKind.PASSWORD_RESET), own)
    _, mail = await plain.mail()
    assert mail["Subject"] == "Sea view: choose a new password"
    assert f"https://app.example.com/reset?t={TOKEN}" in part(mail, "plain").split()
    await out.send(mail_of(MessageKind.INVITATION, token="", home_name="Zoë"), own)
    _, mail = await plain.mail()
    assert mail["Subject"] == "Sea view: you were added to a home"
    assert "“Zoë” at Sea view" in part(mail, "plain")


async def test_name_is_neither_header_nor_line_nor_markup(plain: MailServer) -> None:
    name = 'x\r\nBcc: all@example.com\r\n\r\n<script>alert("1")</script>\u202e'
    await sender(plain).send(mail_of(MessageKind.INVITATION, token="", home_name=name), project(name))
    envelope, mail = await plain.mail()
    assert envelope["to"] == "ann@example.com"
    assert mail["Bcc"] is None
    assert mail["Subject"].strip().startswith('x Bcc: all@example.com <script>alert("1")</script>: ')
    assert not any(line.startswith(("Bcc", "<script")) for line in part(mail, "plain").splitlines())
    html = part(mail, "html")
    assert "<script" not in html
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;" in html
    assert "\u202e" not in html


@pytest.mark.parametrize(
    ("to", "written"),
    [("zoë@example.com", "zoë@example.com"), ("ann@exämple.com", "ann@xn--exmple-cua.com")],
)
async def test_addresses_beyond_ascii(plain: MailServer, to: str, written: str) -> None:
    await sender(plain).send(mail_of(to=to), project())
    envelope, mail = await plain.mail()
    assert envelope["to"] == written
    assert mail["To"] == written


@pytest.mark.parametrize(
    "to", ["a@example.com\r\nRCPT TO:<b@example.com>", "a@example.com, b@example.com", "a"]
)
async def test_mail_to_invalid_address_is_undeliverable(plain: MailServer, to: str) -> None:
    with pytest.raises(Undeliverable):
        await sender(plain).send(mail_of(to=to), project())
    await sender(plain).send(mail_of(), project())
    envelope, _ = await plain.mail()
    assert envelope["to"] == "ann@example.com"


async def test_permanent_and_temporary_refusals_differ(plain: MailServer) -> None:
    with pytest.raises(Undeliverable, match="550"):
        await sender(plain).send(mail_of(to="refused-ann@example.com"), project())
    with pytest.raises(NotSent, match="451") as refusal:
        await sender(plain).send(mail_of(to="later-ann@example.com"), project())
    assert not isinstance(refusal.value, Undeliverable)
    await plain.stop()
    with pytest.raises(NotSent) as refusal:
        await sender(plain).send(mail_of(), project())
    assert not isinstance(refusal.value, Undeliverable)


@pytest.mark.parametrize(
    "wrong",
    [
        {"smtp_from": None},
        {"smtp_from": "nobody"},
        {"smtp_user": "ann"},
        {"smtp_password": "secret"},
        {"smtp_user": "ann", "smtp_password": "secret", "smtp_tls": "none"},
        {"smtp_ca": "/nowhere/ca.pem"},
    ],
)
def test_settings_that_can_not_work(wrong: dict[str, object]) -> None:
    given: dict[str, Any] = {"smtp_host": "127.0.0.1", "smtp_from": "home@example.com", **wrong}
    with pytest.raises(ConfigurationError) as refusal:
        MailSender(Settings(**given))
    assert "HOMEWIRE_SMTP_" in str(refusal.value)
    assert "secret" not in str(refusal.value)
