"""Hosts, origins and networks of settings and requests."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def origin_of(url: str) -> str | None:
    """`scheme://host` of a URL in lower case, with its port unless that is the default of the scheme.

    None unless the URL is of http or https, e.g. for the origin `null`.
    """
    try:
        parts = urlsplit(url.strip().lower())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not host or "@" in parts.netloc:
        return None
    bracketed = f"[{host}]" if ":" in host else host
    suffix = "" if port is None else f":{port}"
    return f"{parts.scheme}://{bracketed}{suffix}".removesuffix(DEFAULT_PORTS[parts.scheme])


def is_loopback(host: str) -> bool:
    """Whether a server that listens on `host` can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def without_port(host: str) -> str:
    """The value of a Host header without its port."""
    name, separator, port = host.rpartition(":")
    return name if separator and port.isdigit() else host


@lru_cache(maxsize=16)
def projects_by_host(table: str) -> Mapping[str, int]:
    """Parse the setting `project_hosts`: project ids by host in lower case. Raises ValueError."""
    found: dict[str, int] = {}
    for item in _items(table):
        host, _, project = (part.strip() for part in item.rpartition("="))
        if not host or "/" in host or int(project) < 1:
            raise ValueError(item)
        found[host.lower()] = int(project)
    return MappingProxyType(found)


@lru_cache(maxsize=16)
def listed_origins(listed: str) -> frozenset[str]:
    """Parse the setting `cookie_origins`, in the form of `origin_of`. Raises ValueError."""
    found = set()
    for item in _items(listed):
        origin, parts = origin_of(item), urlsplit(item)
        if origin is None or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(item)
        found.add(origin)
    return frozenset(found)


@lru_cache(maxsize=16)
def listed_networks(listed: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parse the setting `trusted_proxies`. Raises ValueError, also for a network with bits after its
    prefix."""
    return tuple(ip_network(item) for item in _items(listed))


def _items(listed: str) -> list[str]:
    return [item for each in listed.split(",") if (item := each.strip())]
