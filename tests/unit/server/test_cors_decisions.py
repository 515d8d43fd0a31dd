"""Whose page a request comes from."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from aiohttp.test_utils import make_mocked_request

from homewire.errors import PermissionDenied
from homewire.server.browser import refuse_cross_site
from homewire.server.clients import TrustedProxies
from homewire.settings import Settings

PROXIES = TrustedProxies.of(Settings(trusted_proxies="10.0.0.0/8"))


def crosses(
    headers: Mapping[str, str], host: str = "homewire:8080", allowed: frozenset[str] = frozenset()
) -> bool:
    """Whether the request is refused."""
    request = make_mocked_request("POST", "/", headers={"Host": host, **headers})
    request.protocol.peer = PROXIES.peer("10.0.0.1")  # type: ignore[attr-defined]
    try:
        refuse_cross_site(request, allowed)
    except PermissionDenied as error:
        return error.reason == "CROSS_SITE"
    return False


def test_request_without_origin_is_no_browser() -> None:
    assert not crosses({})


@pytest.mark.parametrize("name", ["Origin", "Referer"])
def test_page_of_the_same_host_and_port_may(name: str) -> None:
    assert not crosses({name: "http://homewire:8080"})
    assert not crosses({name: "HTTP://HOMEWIRE:8080"})
    # Before a balancer that ends TLS.
    assert not crosses({name: "https://home.example"}, "home.example")
    assert not crosses({name: "https://home.example"}, "home.example:443")
    assert not crosses({name: "http://home.example:80"}, "home.example")


@pytest.mark.parametrize("name", ["Origin", "Referer"])
@pytest.mark.parametrize(
    "page",
    [
        "http://evil.example",
        "http://homewire",
        "http://homewire:8081",
        "http://homewire:8080.evil.example",
        "http://evil.example@homewire:8080",
        "http://homewire:8080@evil.example",
        "http://sub.homewire:8080",
        "homewire:8080",
        "null",
        "",
        "chrome-extension://homewire:8080",
        "http://homewire:8080, http://evil.example",
        "http://[::1",
    ],
)
def test_page_of_any_other_may_not(name: str, page: str) -> None:
    assert crosses({name: page})


def test_path_of_a_referer_plays_no_part() -> None:
    assert not crosses({"Referer": "http://homewire:8080/some/page?x=http://evil.example"})
    assert crosses({"Referer": "http://evil.example/http://homewire:8080"})


def test_origin_overrides_referer() -> None:
    assert crosses({"Origin": "null", "Referer": "http://homewire:8080/"})
    assert not crosses({"Origin": "http://homewire:8080", "Referer": "http://evil.example/"})


def test_page_by_http_is_another_than_that_by_https() -> None:
    """Who can change what comes by http must not act on what is protected by TLS."""
    tls = {"X-Forwarded-Proto": "https"}
    assert crosses({"Origin": "http://home.example", **tls}, "home.example")
    assert not crosses({"Origin": "https://home.example", **tls}, "home.example")


def test_without_a_host_nothing_is_our_own() -> None:
    assert crosses({"Origin": "http://homewire:8080"}, "")


def test_listed_origins_are_allowed() -> None:
    allowed = frozenset({"https://app.example.com"})
    assert not crosses({"Origin": "https://app.example.com:443"}, allowed=allowed)
    assert crosses({"Origin": "http://app.example.com"}, allowed=allowed)
    assert crosses({"Origin": "https://evil.example"}, allowed=allowed)
