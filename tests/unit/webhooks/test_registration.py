"""Which URLs a webhook may have."""

from __future__ import annotations

import pytest

from homewire.errors import InvalidInput
from homewire.webhooks.registration import checked_url


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "http://example.com:8080/a%20b?c=d&e=%C3%A9",
        "https://[2606:4700::1]/",
        "HTTPS://A.b/",
    ],
)
def test_callable_url_is_kept_unchanged(url: str) -> None:
    assert checked_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "example.com",
            "/path",
            "ftp://example.com/",
            "file:///etc/passwd",
            "unix:///run/x",
            "https://",
        ),
        *("https://user:pass@example.com/", "https://user@example.com/", "https://example.com/#part"),
        *("https://example.com/a b", "https://example.com/\n", "https://example.com/é", "https://[::1/"),
        *("https://example.com:99999/", "https://example.com:0/", "https://e.com/" + "a" * 2048),
    ],
)
def test_uncallable_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checked_url(url)
    assert refused.value.data["field"] == "url"
    assert "pass" not in refused.value.data["problem"].partition("must have no")[0]
