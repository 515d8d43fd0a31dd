"""Hosts and origins: what settings may list, and when two are the same."""

from __future__ import annotations

import pytest

from homewire.errors import ConfigurationError
from homewire.hosts import listed_origins, origin_of, projects_by_host, without_port
from homewire.settings import load


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.com:443/a?b#c", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("http://[::1]:8080/x", "http://[::1]:8080"),
        ("http://[::1]:80", "http://[::1]"),
        ("null", None),
        ("", None),
        ("app.example.com", None),
        ("file:///etc/passwd", None),
        ("https://", None),
        ("https://app.example.com:99999", None),
        ("https://app.example.com:x", None),
        ("https://[::1", None),
        ("https://app.example.com@evil.example", None),
    ],
)
def test_origin_is_written_in_one_way(url: str, origin: str | None) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("host", "name"),
    [("a.example", "a.example"), ("a.example:80", "a.example"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")],
)
def test_host_without_its_port(host: str, name: str) -> None:
    assert without_port(host) == name


def test_tables_are_read_as_people_write_them() -> None:
    assert projects_by_host(" A.example.com=3, b.example.com:8080 = 4,") == {
        "a.example.com": 3,
        "b.example.com:8080": 4,
    }
    assert projects_by_host("") == {}
    assert listed_origins("https://A.example.com/ , http://localhost:80") == {
        "https://a.example.com",
        "http://localhost",
    }
    assert listed_origins("") == frozenset()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("project_hosts", "a.example.com"),
        ("project_hosts", "a.example.com=x"),
        ("project_hosts", "a.example.com=0"),
        ("project_hosts", "=3"),
        ("project_hosts", "https://a.example.com=3"),
        ("cookie_origins", "app.example.com"),
        ("cookie_origins", "*"),
        ("cookie_origins", "https://a.example.com/path"),
        ("cookie_origins", "https://a.example.com,null"),
    ],
)
def test_invalid_hosts_are_refused_at_start(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"HOMEWIRE_{name.upper()}: must look like"):
        load(**{name: value})
