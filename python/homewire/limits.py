"""Limits of the operating system that a server of many sockets must lift."""

from __future__ import annotations

import resource

# macOS says "unlimited" and then refuses more than this (OPEN_MAX of its headers).
UNLIMITED_STANDS_FOR = 10_240


def open_file_limit() -> tuple[int, int]:
    """Soft and hard limit of open files, in descriptors; "unlimited" as what it really grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _granted(soft), _granted(hard)


def raise_open_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return the limit now in force.

    Every WebSocket is a descriptor, and the usual soft limit of 1,024 would end at a thousand clients.
    """
    soft, hard = open_file_limit()
    if soft < hard:
        _, kept = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, kept))
    return max(soft, hard)


def _granted(limit: int) -> int:
    return UNLIMITED_STANDS_FOR if limit == resource.RLIM_INFINITY else limit
