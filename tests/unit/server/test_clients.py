"""Whose address a request has: what is read of a trusted proxy's headers, and that nobody else's are read."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from homewire.errors import ConfigurationError
from homewire.hosts import listed_networks
from homewire.server.clients import Peer, TrustedProxies, address_of, by_https, client_address
from homewire.settings import Settings, load

PROXY = "10.0.0.1"
FOR = TrustedProxies.of(Settings(trusted_proxies="10.0.0.0/8, fd00::/8"))
FORWARDED = TrustedProxies.of(Settings(trusted_proxies="10.0.0.0/8, fd00::/8", forwarded_header="forwarded"))


def request_from(peer: Peer, *headers: tuple[str, str]) -> web.Request:
    request = make_mocked_request("GET", "/", headers=CIMultiDict(headers))
    request.protocol.peer = peer  # type: ignore[attr-defined]
    return request


def client(proxies: TrustedProxies, name: str, lines: Sequence[str], peer: str = PROXY) -> str | None:
    return client_address(request_from(proxies.peer(peer), *((name, line) for line in lines)))


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ([], PROXY),
        ([""], PROXY),
        (["192.0.2.7"], "192.0.2.7"),
        ([" 192.0.2.7 "], "192.0.2.7"),
        # The rightmost that is no proxy's, whatever stands left of it.
        (["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7, 10.9.9.9"], "192.0.2.7"),
        (["6.6.6.6", "192.0.2.7, 10.9.9.9", "fd00::1"], "192.0.2.7"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        # Ports, brackets and ways to write an address.
        (["192.0.2.7:4711"], "192.0.2.7"),
        (["2001:DB8:0::7"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["::ffff:192.0.2.7"], "192.0.2.7"),
        (["192.0.2.7, ::ffff:10.2.2.2"], "192.0.2.7"),
        # What is no address: the proxy that wrote it stands for its client.
        (["unknown"], PROXY),
        (["192.0.2.7, unknown"], PROXY),
        (["192.0.2.7, unknown, 10.2.2.2"], "10.2.2.2"),
        (["192.0.2.7,"], PROXY),
        (["192.0.2.7, _hidden"], PROXY),
        (["192.0.2.7, <script>"], PROXY),
        (["192.0.2.7, 1.2.3"], PROXY),
        (["192.0.2.7, 010.1.1.1"], PROXY),
        (["192.0.2.7, fe80::1%eth0"], PROXY),
        (["192.0.2.7, 1.1.1.1:"], PROXY),
        (["192.0.2.7, 1.1.1.1:x"], PROXY),
        (["192.0.2.7, [1.1.1.1]"], PROXY),
        (["192.0.2.7, [2001:db8::7"], PROXY),
        (["192.0.2.7, [2001:db8::7]4711"], PROXY),
        (["192.0.2.7, " + "1" * 16_000], PROXY),
    ],
)
def test_x_forwarded_for_is_read_from_the_right(lines: list[str], address: str) -> None:
    assert client(FOR, "X-Forwarded-For", lines) == address


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ([], PROXY),
        (["for=192.0.2.7"], "192.0.2.7"),
        (['For="192.0.2.7:4711"'], "192.0.2.7"),
        (['by=10.0.0.1;for="[2001:db8::7]:4711";proto=https'], "2001:db8::7"),
        (['for="[2001:db8::7]:_port"'], "2001:db8::7"),
        (["for=6.6.6.6, for=192.0.2.7, for=10.9.9.9"], "192.0.2.7"),
        (["for=6.6.6.6", 'for=192.0.2.7, for="[fd00::1]"'], "192.0.2.7"),
        (["for=unknown"], PROXY),
        (["for=192.0.2.7, for=_hidden"], PROXY),
        (["for=192.0.2.7, for=_hidden, for=10.2.2.2"], "10.2.2.2"),
        (["for=192.0.2.7, proto=https"], PROXY),
        (["for=6.6.6.6;for=192.0.2.7"], PROXY),
        (["for=192.0.2.7, garbage"], PROXY),
        (["for=192.0.2.7, for=[2001:db8::7"], PROXY),
        # A client can't reach, with quotes left open, what a proxy wrote behind them.
        (['for=6.6.6.6;x=", for="[2001:db8::7]";y="z"'], "2001:db8::7"),
        (['for="6.6.6.6', 'for="[2001:db8::7]"'], "2001:db8::7"),
        (['for=192.0.2.7;host="x;for=6.6.6.6"'], "192.0.2.7"),
        (['for=192.0.2.7;host="x, for=6.6.6.6"'], "192.0.2.7"),
        (['for=192.0.2.7;host="x\\", for=6.6.6.6;y=\\"z"'], "192.0.2.7"),
    ],
)
def test_forwarded_is_read_from_the_right(lines: list[str], address: str) -> None:
    assert client(FORWARDED, "Forwarded", lines) == address


def test_only_the_header_that_was_chosen_counts() -> None:
    both = [("X-Forwarded-For", "192.0.2.7"), ("Forwarded", "for=192.0.2.8;proto=https")]
    assert client_address(request_from(FOR.peer(PROXY), *both)) == "192.0.2.7"
    assert client_address(request_from(FORWARDED.peer(PROXY), *both)) == "192.0.2.8"
    assert not by_https(request_from(FOR.peer(PROXY), *both))
    assert by_https(request_from(FORWARDED.peer(PROXY), *both))
    assert not by_https(request_from(FORWARDED.peer(PROXY), ("X-Forwarded-Proto", "https")))


@pytest.mark.parametrize("proxies", [TrustedProxies(), FOR, FORWARDED])
def test_untrusted_proxies_are_ignored(proxies: TrustedProxies) -> None:
    forged = [
        ("X-Forwarded-For", "192.0.2.7"),
        ("Forwarded", "for=192.0.2.7;proto=https"),
        ("X-Forwarded-Proto", "https"),
    ]
    for peer in ("198.51.100.1", "2001:db8::1", "fe80::1%eth0"):
        request = request_from(proxies.peer(peer), *forged)
        assert client_address(request) == peer
        assert not by_https(request)


@pytest.mark.parametrize(
    ("said", "https"),
    [(["https"], True), (["HTTPS"], True), (["http, https"], True), (["https, http"], False), (["x"], False),
     (["https", "http"], False), (["http", " https "], True), ([], False)],
)  # fmt: skip
def test_nearest_proxy_says_how_it_was_reached(said: list[str], https: bool) -> None:
    assert by_https(request_from(FOR.peer(PROXY), *(("X-Forwarded-Proto", each) for each in said))) is https


def test_forwarded_address_is_valid_or_ignored() -> None:
    assert address_of("192.0.2.7") == "192.0.2.7"
    for text in ("", " ", ":", "::", "[]", "[]:1", "1.2.3.4.5", "\uff11.2.3.4", "\x00", "1.2.3.4:99_9"):
        assert address_of(text) in (None, "::")


def test_networks_are_checked_when_they_are_set() -> None:
    assert [str(each) for each in listed_networks("192.0.2.7, fd00::/8,")] == ["192.0.2.7/32", "fd00::/8"]
    for wrong in ("10.0.0.1/8", "example.com", "10.0.0.0/33", "10.0.0.0-10.0.0.9"):
        with pytest.raises(ConfigurationError, match="HOMEWIRE_TRUSTED_PROXIES"):
            load(trusted_proxies=wrong)
    with pytest.raises(ConfigurationError, match="HOMEWIRE_TRUSTED_PROXIES"):
        load(proxy_protocol=True)
