"""The pages that links in mails lead to, unless a project has its own: /verifyEmail and /resetPassword.

The token stands in the fragment, and a click posts it: what only follows links, as mail scanners do, spends
nothing. A page is one answer, with its style and script in it, and may load nothing else.
"""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Final

from aiohttp import web

from homewire.messages.message import PASSWORD_RESET_PAGE, VERIFICATION_PAGE
from homewire.server.static import StaticDocument, static_page

_HERE: Final = Path(__file__).parent

_TWO_INPUTS: Final = """\
<label>New password <input name="newPassword" type="password" autocomplete="new-password" required></label>
<label>Once more <input name="repeated" type="password" autocomplete="new-password" required></label>"""

_REGISTRANT: Final = """\
<p>Somebody registered with this address. Confirm it only if that was you: who registered can sign in then.
If it was not you, close this page.</p>
<label>The password you chose
<input name="password" type="password" autocomplete="current-password"></label>"""
"""Not required: a user that was made without a password has none to give."""


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
    """A page of homewire's own words: nothing in it is from a user."""
    style, script = _file("page.css"), _file("page.js")
    page = Template(_file("page.html")).substitute(texts, style=style, script=script).encode()
    return static_page(lambda: page, style, script)


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
