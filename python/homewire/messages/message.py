"""Messages: what they are made of, and the texts of e-mails and SMS.

A message as it lies in Redis: sealed, for codes and tokens are secrets, and so are addresses.

The links in messages. A secret stands only where the template puts it, by default in the fragment,
which no browser sends to any server and no proxy writes to its log.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from html import escape
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

from homewire.errors import ConfigurationError
from homewire.messages.models import OutboxMessage
from homewire.projects.models import Project
from homewire.sealing import Sealer


class MessageKind(StrEnum):
    """The occasion of a message."""

    EMAIL_VERIFICATION = "emailVerification"
    PASSWORD_RESET = "passwordReset"  # noqa: S105 (the name of a kind)
    INVITATION = "invitation"
    """A user was added to a home of an e-mail project."""
    PASSWORD_CHANGED = "passwordChanged"  # noqa: S105 (the name of a kind)
    EMAIL_CHANGE = "emailChange"
    """A code, to the address that a user wants to be known by."""
    EMAIL_CHANGED = "emailChanged"
    """To the address before."""
    PHONE_CHANGE = "phoneChange"
    """By SMS, like the next two."""
    PHONE_CHANGED = "phoneChanged"
    SIGN_IN_CODE = "signInCode"


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one person. `code` and `token` are secrets: they stand in no repr and no log."""

    project_id: int
    kind: MessageKind
    to: str
    """An e-mail address, or a phone number in the form of E.164."""
    code: str = ""
    token: str = ""
    home_name: str = ""
    """Of an invitation."""
    good_until_ms: int = 0
    """In ms since 1970; sent no more from then on, for code or token are worthless. 0: it never expires."""

    def __repr__(self) -> str:
        return f"Message({self.kind}, project {self.project_id})"


class Messages(Protocol):
    """The sender of messages."""

    async def require_room(self, kind: MessageKind) -> None:
        """Check before a change that its message fits into the queue. Raises Unavailable."""

    def posting(self, message: Message) -> OutboxMessage:
        """What a change of the store takes along: once it is made, the message is delivered.

        The time this takes does not depend on the recipient. One that is to nobody (`to` empty) takes the
        same way, as long, and is dropped at its end.
        """


BY_SMS: Final = frozenset({MessageKind.PHONE_CHANGE, MessageKind.PHONE_CHANGED, MessageKind.SIGN_IN_CODE})


class Channel(StrEnum):
    """How a message is sent: by e-mail or SMS."""

    MAIL = "mail"
    SMS = "sms"

    @classmethod
    def of(cls, kind: MessageKind) -> Channel:
        """The channel of a kind of message."""
        return cls.SMS if kind in BY_SMS else cls.MAIL


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message on its way, and what does not change from try to try."""

    id: str
    """What a receiver may know a repetition by."""
    message: Message
    base_url: str
    """Under which this homewire is reached by whoever gets the message."""

    def __repr__(self) -> str:
        return f"Letter({self.id}, {self.message})"

    @classmethod
    def new(cls, message: Message, base_url: str) -> QueuedMessage:
        """A new message to be queued."""
        return cls(secrets.token_hex(16), message, base_url)

    def sealed(self, sealer: Sealer) -> str:
        """As it may be written to Redis. Raises ConfigurationError."""
        return sealer.seal(_encode(self).decode())

    @classmethod
    def opened(cls, sealed: str, sealer: Sealer) -> QueuedMessage:
        """What `sealed` made. Raises ConfigurationError for what this deployment did not seal."""
        try:
            return _decode(sealer.open(sealed))
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                "a stored message is of a version that this homewire can't read"
            ) from error


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(QueuedMessage).decode


NAME_LENGTH: Final = 80
"""Of a project's or home's name in a message; what is longer is cut."""


@dataclass(frozen=True, slots=True)
class MailText:
    """A mail, twice: as plain text and as HTML."""

    subject: str
    text: str
    html: str


def mail_text(message: Message, project_name: str, link: str | None) -> MailText:
    """The words of a mail. `link` is that of a message with a token."""
    project, home = selected(project_name), selected(message.home_name)
    match message.kind:
        case MessageKind.EMAIL_VERIFICATION:
            return _mail(
                f"{project}: confirm your e-mail address",
                f"Somebody registered at {project} with this address. If it was you, confirm it here:",
                link,
                "If it was not you, do not confirm it: who registered could sign in then.",
            )
        case MessageKind.PASSWORD_RESET:
            return _mail(
                f"{project}: choose a new password",
                f"Somebody, probably you, asked for a new password at {project}. To choose one, open:",
                link,
                "If it was not you, do nothing: your password stays as it is.",
            )
        case MessageKind.INVITATION:
            return _mail(
                f"{project}: you were added to a home",
                f"You are now a member of the home “{home}” at {project}.",
                None,
                "If you have no account there yet, register with this e-mail address.",
            )
        case MessageKind.PASSWORD_CHANGED:
            return _mail(
                f"{project}: your password was changed",
                f"The password of your account at {project} was changed.",
                None,
                "If it was not you, ask for a new password at once: that logs out everybody else.",
            )
        case MessageKind.EMAIL_CHANGE:
            return _mail(
                f"{project}: your code",
                f"{message.code} is the code to use this address for your account at {project}.",
                None,
                "If you did not ask for it, do nothing, and give it to nobody.",
            )
        case MessageKind.EMAIL_CHANGED:
            return _mail(
                f"{project}: your e-mail address was changed",
                f"Your account at {project} has another e-mail address now; this one is used no more.",
                None,
                "If it was not you, tell those who run it at once.",
            )
        case MessageKind.SIGN_IN_CODE | MessageKind.PHONE_CHANGE | MessageKind.PHONE_CHANGED:
            raise ValueError("this goes by SMS")


def sms_text(message: Message, project_name: str) -> str:
    """The words of an SMS."""
    project = selected(project_name)
    match message.kind:
        case MessageKind.PHONE_CHANGE:
            return f"{message.code} is the code to use this number for your account at {project}."
        case MessageKind.PHONE_CHANGED:
            return (
                f"Your account at {project} has another phone number now. If it was not you, tell {project}."
            )
        case _:
            return f"{message.code} is your code to sign in to {project}."


def selected(name: str) -> str:
    """A name on one line, without what is not printed (line ends, changes of direction)."""
    words = "".join(each if each.isprintable() else " " for each in name).split()
    line = " ".join(words)
    return line if len(line) <= NAME_LENGTH else line[: NAME_LENGTH - 1] + "…"


def _mail(subject: str, first: str, link: str | None, last: str) -> MailText:
    text = "\n\n".join(part for part in (first, link, last) if part) + "\n"
    link_element = f'<p><a href="{escape(link)}">{escape(link)}</a></p>' if link else ""
    body = f"<p>{escape(first)}</p>{link_element}<p>{escape(last)}</p>"
    return MailText(subject, text, f"<!doctype html><html><body>{body}</body></html>\n")


TOKEN: Final = "{token}"  # noqa: S105 (a placeholder)
VERIFICATION_PAGE: Final = "/verifyEmail"
PASSWORD_RESET_PAGE: Final = "/resetPassword"  # noqa: S105 (a path)


def link(message: Message, project: Project, base_url: str) -> str | None:
    """The link of a message that has a token; None for others. `base_url` is without a final slash."""
    match message.kind:
        case MessageKind.EMAIL_VERIFICATION:
            template = project.verification_url or f"{base_url}{VERIFICATION_PAGE}#token={TOKEN}"
        case MessageKind.PASSWORD_RESET:
            template = project.password_reset_url or f"{base_url}{PASSWORD_RESET_PAGE}#token={TOKEN}"
        case _:
            return None
    return template.replace(TOKEN, quote(message.token, safe=""))
