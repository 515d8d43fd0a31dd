"""Hosts and origins, as settings list them and as requests name them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}


def origin_of(url: str) -> str | None:
    """`scheme://host` of a URL, with its port unless that is the scheme's own, in lower case.

    None for what is no URL of http or https, like the origin `null`.
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
    """Whether only this machine reaches what listens on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def without_port(host: str) -> str:
    """A Host header's value without its port."""
    name, separator, port = host.rpartition(":")
    return name if separator and port.isdigit() else host


@lru_cache(maxsize=16)
def projects_by_host(table: str) -> Mapping[str, int]:
    """The setting `project_hosts`: project ids by host, in lower case. Raises ValueError."""
    found: dict[str, int] = {}
    for entry in _entries(table):
        host, _, project = (part.strip() for part in entry.rpartition("="))
        if not host or "/" in host or int(project) < 1:
            raise ValueError(entry)
        found[host.lower()] = int(project)
    return MappingProxyType(found)


@lru_cache(maxsize=16)
def listed_origins(listed: str) -> frozenset[str]:
    """The setting `cookie_origins`, each as `origin_of` has it. Raises ValueError."""
    found = set()
    for entry in _entries(listed):
        origin, parts = origin_of(entry), urlsplit(entry)
        if origin is None or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(entry)
        found.add(origin)
    return frozenset(found)


@lru_cache(maxsize=16)
def listed_networks(listed: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The setting `trusted_proxies`. Raises ValueError, also for a network with bits behind its prefix."""
    return tuple(ip_network(entry) for entry in _entries(listed))


def _entries(listed: str) -> list[str]:
    return [entry for each in listed.split(",") if (entry := each.strip())]
