"""The links in messages. A secret stands only where the template puts it, by default in the fragment,
which no browser sends to any server and no proxy writes to its log."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from homewire.model import Project
from homewire.notify.message import Message, MessageKind

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
