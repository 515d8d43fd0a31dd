"""What a project's own links may look like."""

from __future__ import annotations

import pytest

from homewire.errors import InvalidInput
from homewire.store.checks import link_template


@pytest.mark.parametrize(
    "template",
    [
        "",
        "https://app.example.com/verify#{token}",
        "http://localhost:3000/verify?token={token}&from=mail",
        "https://[2001:db8::1]/{token}",
    ],
)
def test_usable_links(template: str) -> None:
    assert link_template("verificationUrl", template) == template


@pytest.mark.parametrize(
    "template",
    [
        "https://app.example.com/verify",
        "app.example.com/{token}",
        "javascript:alert('{token}')",
        "ftp://example.com/{token}",
        "https://{token}.example.com/",
        "https:///verify/{token}",
        "https://user:secret@example.com/{token}",
        "https://example.com:99999/{token}",
        "https://example.com/{token}\r\nBcc: all@example.com",
        "https://example.com/{token} ",
        'https://example.com/"><script>/{token}',
        "https://example.com/ü/{token}",
        "https://example.com/{token}" + "x" * 2048,
    ],
)
def test_others_are_refused_by_name(template: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        link_template("verificationUrl", template)
    assert refusal.value.data["field"] == "verificationUrl"
