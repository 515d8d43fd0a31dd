"""E-mail by SMTP."""

from __future__ import annotations

import socket
import ssl
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr

import aiosmtplib

from homewire.clock import MACHINE_CLOCK
from homewire.errors import ConfigurationError, NotSent, Undeliverable
from homewire.messages.message import QueuedMessage, link, mail_text
from homewire.projects.models import Project
from homewire.settings import Settings


class MailSender:
    """Gives mails to the SMTP server of the settings, each in a session of its own."""

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

    async def carry(self, queued: QueuedMessage, project: Project) -> None:
        """Returns when the server has taken the mail. Raises NotSent, Undeliverable."""
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
            # What it would look up otherwise may keep a machine without DNS for long.
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
        """Nothing is kept open between mails."""


def compose(queued: QueuedMessage, project: Project, sender: Address, recipient: Address) -> EmailMessage:
    """The mail, as RFC 5322 has it."""
    message = queued.message
    words = mail_text(message, project.name, link(message, project, queued.base_url))
    mail = EmailMessage(policy.SMTP)
    mail["From"] = sender
    mail["To"] = recipient
    mail["Subject"] = words.subject
    mail["Date"] = format_datetime(datetime.fromtimestamp(MACHINE_CLOCK.now_ms() / 1000, UTC))
    # The same for every try, so that a repetition can be known.
    mail["Message-ID"] = f"<{queued.id}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(words.text)
    mail.add_alternative(words.html, subtype="html")
    return mail


def recipient_of(address: str) -> Address:
    """One address, in ASCII where that can be: not every server takes others. Raises Undeliverable."""
    # Imported at use: it costs every start 100 ms otherwise.
    from email_validator import EmailNotValidError, validate_email

    try:
        found = validate_email(address, check_deliverability=False, globally_deliverable=False)
    except EmailNotValidError:
        raise Undeliverable("not an address") from None
    return Address(username=found.ascii_local_part or found.local_part, domain=found.ascii_domain)


def sender_of(text: str) -> Address:
    """``home@example.com`` or ``Home <home@example.com>``. Raises ConfigurationError."""
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
    """What an error means; never the server's own words, which may repeat what was sent."""
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
