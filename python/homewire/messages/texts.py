"""The texts of e-mails and SMS, and the links in them.

A secret stands in a link only where the template puts it: by default in the fragment. A browser sends no
fragment to a server, so no proxy writes it to a log.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import quote

from homewire.messages.models import Message, MessageKind
from homewire.projects.models import Project

NAME_LENGTH: Final = 80
"""Maximum characters of a project's or home's name in a message; a longer name is cut."""


@dataclass(frozen=True, slots=True)
class MailText:
    """Subject and text of an e-mail, as plain text and as HTML."""

    subject: str
    text: str
    html: str


def mail_text(message: Message, project_name: str, link: str | None) -> MailText:
    """The text of an e-mail. `link` is the link of a message with a token. Raises ValueError for an SMS."""
    project, home = selected(project_name), selected(message.home_name)
    match message.kind:
        case MessageKind.EMAIL_VERIFICATION:
            return _mail(
                f"{project}: confirm your e-mail address",
                f"An account at {project} was registered with this address. If it was you, confirm here:",
                link,
                "If it was not you, do not confirm: the person who registered could then sign in.",
            )
        case MessageKind.PASSWORD_RESET:
            return _mail(
                f"{project}: choose a new password",
                f"A new password for your account at {project} was requested. To choose one, open:",
                link,
                "If you did not request it, do nothing: your password does not change.",
            )
        case MessageKind.INVITATION:
            return _mail(
                f"{project}: you were added to a home",
                f"You are now a member of the home “{home}” at {project}.",
                None,
                "If you have no account there, register with this e-mail address.",
            )
        case MessageKind.PASSWORD_CHANGED:
            return _mail(
                f"{project}: your password was changed",
                f"The password of your account at {project} was changed.",
                None,
                "If you did not change it, request a new password at once. That ends all other sessions.",
            )
        case MessageKind.EMAIL_CHANGE:
            return _mail(
                f"{project}: your code",
                f"{message.code} is the code to use this address for your account at {project}.",
                None,
                "If you did not request it, do nothing. Do not give the code to anyone.",
            )
        case MessageKind.EMAIL_CHANGED:
            return _mail(
                f"{project}: your e-mail address was changed",
                f"Your account at {project} now has another e-mail address. This address is no longer used.",
                None,
                f"If you did not change it, contact {project} at once.",
            )
        case MessageKind.SIGN_IN_CODE | MessageKind.PHONE_CHANGE | MessageKind.PHONE_CHANGED:
            raise ValueError(f"{message.kind} is sent by SMS")


def sms_text(message: Message, project_name: str) -> str:
    """The text of an SMS."""
    project = selected(project_name)
    match message.kind:
        case MessageKind.PHONE_CHANGE:
            return f"{message.code} is the code to use this number for your account at {project}."
        case MessageKind.PHONE_CHANGED:
            return (
                f"Your account at {project} now has another phone number. If you did not change it, contact "
                f"{project}."
            )
        case _:
            return f"{message.code} is your code to sign in to {project}."


def selected(name: str) -> str:
    """A name on one line, without characters that are not printable (line ends, changes of direction)."""
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
