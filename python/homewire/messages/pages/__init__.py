"""The pages /verifyEmail and /resetPassword, for links in e-mails of projects without pages of their own.

The token stands in the fragment, and a click posts it. A mail scanner that only follows links does not use
the token up. A page is one answer with its style and script in it, and loads nothing else.
"""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Final

from aiohttp import web

from homewire.messages.texts import PASSWORD_RESET_PAGE, VERIFICATION_PAGE
from homewire.server.static import StaticDocument, static_page

_HERE: Final = Path(__file__).parent

_TWO_INPUTS: Final = """\
<label>New password <input name="newPassword" type="password" autocomplete="new-password" required></label>
<label>Once more <input name="repeated" type="password" autocomplete="new-password" required></label>"""

_REGISTRANT: Final = """\
<p>An account was registered with this address. Confirm only if it was you: the person who registered can then
sign in. If it was not you, close this page.</p>
<label>The password you chose
<input name="password" type="password" autocomplete="current-password"></label>"""
"""The password is not required: a user that was created without a password has none."""


def routes() -> list[web.RouteDef]:
    """What to mount at the URL root."""
    verification = _page(
        title="Confirm your e-mail address",
        # Relative, so that it is found behind a proxy that puts all of homewire under a path.
        endpoint="auth/user/emailVerification",
        fields=_REGISTRANT,
        button="Confirm",
        done="Thank you, your address is confirmed. You can close this page.",
    )
    password_reset = _page(
        title="Choose a new password",
        endpoint="auth/user/passwordReset",
        fields=_TWO_INPUTS,
        button="Save",
        done="Your new password is saved. You can sign in with it now.",
    )
    return [
        web.get(VERIFICATION_PAGE, verification.serve),
        web.get(PASSWORD_RESET_PAGE, password_reset.serve),
    ]


def _page(**texts: str) -> StaticDocument:
    """A page whose texts are homewire's own: no text of a user is in it."""
    style, script = _file("page.css"), _file("page.js")
    page = Template(_file("page.html")).substitute(texts, style=style, script=script).encode()
    return static_page(lambda: page, style, script)


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
