"""Senders of messages, as the settings configure them: e-mail by SMTP, SMS by the webhook of a gateway."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Final, Protocol
from urllib.parse import urlsplit

import aiohttp
import aiosmtplib
import orjson

from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import ConfigurationError, NotSent, Undeliverable
from homewire.messages.models import Channel
from homewire.messages.queue import QueuedMessage
from homewire.messages.texts import link, mail_text, sms_text
from homewire.projects.models import Project
from homewire.settings import Settings
from homewire.webhooks.client import HEADER, hmac_hex

TIMESTAMP: Final = "X-Homewire-Timestamp"
"""The time of this try, in seconds since 1970. A receiver refuses old requests, which may be replays."""
MESSAGE_ID: Final = "X-Homewire-Message-Id"
"""The same for every try of a message."""
KEY_LENGTH: Final = 16
NEVER: Final = frozenset({400, 422})
"""Statuses after which no further try is made."""


class Sender(Protocol):
    """Sends the messages of one channel."""

    async def send(self, queued: QueuedMessage, project: Project) -> None:
        """Send the message. Returns when the other side has accepted it.

        Raises NotSent, and Undeliverable if no retry can succeed.
        """

    async def close(self) -> None:
        """Close all connections."""


def senders(settings: Settings, clock: Clock = MACHINE_CLOCK) -> dict[Channel, Sender]:
    """A sender for each configured channel. Raises ConfigurationError."""
    found: dict[Channel, Sender] = {}
    if settings.smtp_host is not None:
        found[Channel.MAIL] = MailSender(settings)
    if (settings.sms_url is None) != (settings.sms_key is None):
        raise ConfigurationError("HOMEWIRE_SMS_URL and HOMEWIRE_SMS_KEY need each other")
    if settings.sms_url is not None and settings.sms_key is not None:
        found[Channel.SMS] = SmsSender(settings.sms_url, settings.sms_key, clock)
    return found


class MailSender:
    """Sends e-mails to the configured SMTP server, each in an SMTP session of its own."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError."""
        if settings.smtp_from is None:
            raise ConfigurationError("HOMEWIRE_SMTP_HOST needs HOMEWIRE_SMTP_FROM, the sender of e-mails")
        if (settings.smtp_user is None) != (settings.smtp_password is None):
            raise ConfigurationError("HOMEWIRE_SMTP_USER and HOMEWIRE_SMTP_PASSWORD need each other")
        if settings.smtp_user is not None and settings.smtp_tls == "none":
            raise ConfigurationError(
                "HOMEWIRE_SMTP_PASSWORD is not sent in the clear: HOMEWIRE_SMTP_TLS must be starttls or tls"
            )
        self._settings = settings
        self._from = sender_of(settings.smtp_from)
        self._tls = None if settings.smtp_tls == "none" else _trust(settings)

    async def send(self, queued: QueuedMessage, project: Project) -> None:
        """Send an e-mail. Returns when the server has accepted it. Raises NotSent, Undeliverable."""
        recipient = recipient_of(queued.message.to)
        mail = compose(queued, project, self._from, recipient)
        settings = self._settings
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_user,
            password=settings.smtp_password,
            use_tls=settings.smtp_tls == "tls",
            start_tls=settings.smtp_tls == "starttls",
            tls_context=self._tls,
            timeout=settings.message_attempt_s,
            # By default aiosmtplib looks up its own name, which takes long on a machine without DNS.
            local_hostname=socket.gethostname(),
        )
        try:
            async with client:
                await client.send_message(mail, sender=self._from.addr_spec, recipients=[recipient.addr_spec])
        except (aiosmtplib.SMTPException, OSError) as error:
            raise _refusal(error) from error
        finally:
            client.close()

    async def close(self) -> None:
        """Nothing to close: no connection stays open between e-mails."""


def compose(queued: QueuedMessage, project: Project, sender: Address, recipient: Address) -> EmailMessage:
    """The e-mail in the form of RFC 5322."""
    message = queued.message
    words = mail_text(message, project.name, link(message, project, queued.base_url))
    mail = EmailMessage(policy.SMTP)
    mail["From"] = sender
    mail["To"] = recipient
    mail["Subject"] = words.subject
    mail["Date"] = format_datetime(datetime.fromtimestamp(MACHINE_CLOCK.now_ms() / 1000, UTC))
    # The same for every try, so that mail programs recognise repetitions.
    mail["Message-ID"] = f"<{queued.id}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(words.text)
    mail.add_alternative(words.html, subtype="html")
    return mail


def recipient_of(address: str) -> Address:
    """Parse one address, in ASCII where possible: not every server accepts others. Raises Undeliverable."""
    # Imported at use: it costs every start 100 ms otherwise.
    from email_validator import EmailNotValidError, validate_email

    try:
        found = validate_email(address, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError:
        raise Undeliverable("not an address") from None
    return Address(username=found.ascii_local_part or found.local_part, domain=found.ascii_domain)


def sender_of(text: str) -> Address:
    """Parse ``home@example.com`` or ``Home <home@example.com>``. Raises ConfigurationError."""
    name, address = parseaddr(text)
    try:
        if "@" not in address:
            raise ValueError(address)
        return Address(display_name=name, addr_spec=address)
    except (ValueError, IndexError):
        raise ConfigurationError(
            "HOMEWIRE_SMTP_FROM: must be an address, like home@example.com or Home <home@example.com>"
        ) from None


def _trust(settings: Settings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.smtp_ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"HOMEWIRE_SMTP_CA: {settings.smtp_ca} can't be used: {error}") from error


def _refusal(error: Exception) -> NotSent:
    """Convert an error, without the server's text: it may repeat the e-mail."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        codes = [each.code for each in error.recipients]
        problem = f"recipient refused: {', '.join(map(str, codes))}"
        return Undeliverable(problem) if all(code >= 500 for code in codes) else NotSent(problem)
    if isinstance(error, aiosmtplib.SMTPNotSupported):
        return Undeliverable("the server can't take this address")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        problem = f"{type(error).__name__} {error.code}"
        refused = isinstance(error, aiosmtplib.SMTPDataError) and error.code >= 500
        return Undeliverable(problem) if refused else NotSent(problem)
    return NotSent(type(error).__name__)


class SmsSender:
    """Sends SMS: posts `{to, text, kind, projectId}` to a gateway at `url`. Any 2xx means accepted.

    The signature with `key` covers the digits of the timestamp and the body.
    """

    def __init__(self, url: str, key: str, clock: Clock = MACHINE_CLOCK) -> None:
        """Raises ConfigurationError."""
        if urlsplit(url).scheme not in ("http", "https"):
            raise ConfigurationError("HOMEWIRE_SMS_URL: must begin with https:// or http://")
        if len(key) < KEY_LENGTH:
            raise ConfigurationError(f"HOMEWIRE_SMS_KEY: needs at least {KEY_LENGTH} characters")
        self._url = url
        self._key = key
        self._clock = clock
        self._http: aiohttp.ClientSession | None = None

    async def send(self, queued: QueuedMessage, project: Project) -> None:
        """Send an SMS. Returns when the gateway has accepted it. Raises NotSent, Undeliverable."""
        message = queued.message
        body = orjson.dumps(
            {
                "to": message.to,
                "text": sms_text(message, project.name),
                "kind": message.kind.value,
                "projectId": message.project_id,
            }
        )
        timestamp = str(self._clock.now_ms() // 1000)
        headers = {
            "Content-Type": "application/json",
            TIMESTAMP: timestamp,
            HEADER: hmac_hex(self._key, timestamp, body),
            MESSAGE_ID: queued.id,
        }
        if self._http is None:
            # No cookies: a request must not contain anything from an earlier answer.
            self._http = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._http.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError) as error:
            raise NotSent(type(error).__name__) from error
        if not 200 <= status < 300:
            problem = f"the gateway answered {status}"
            raise Undeliverable(problem) if status in NEVER else NotSent(problem)

    async def close(self) -> None:
        """Close the connections to the gateway."""
        if self._http is not None:
            await self._http.close()
