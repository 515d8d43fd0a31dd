"""Limits of the operating system and of Python that matter to a server with many sockets."""

from __future__ import annotations

import gc
import os
import resource
from pathlib import Path

# macOS reports "unlimited" but grants at most this number (OPEN_MAX).
UNLIMITED_STANDS_FOR = 10_240


YOUNG_OBJECTS = 5_000
"""New objects before a collection: more than requests in progress hold, so few are scanned in vain."""

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def memory_bytes() -> int:
    """The memory that this process may use, in bytes: the machine's, or the limit of its container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    granted = [path.read_text().strip() for path in cgroup_limits() if path.exists()]
    # "max" where there is no limit.
    return min([machine, *(int(text) for text in granted if text.isdigit())])


def cgroup_limits() -> list[Path]:
    """Files with memory limits: of this process' control groups and their parents (version 2, then 1).

    Inside a container the own group is the root. The group of a system service is some levels below.
    """
    lines = OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.exists() else []
    found = [CGROUPS / "memory.max", CGROUPS / "memory" / "memory.limit_in_bytes"]
    for line in lines:
        _, controllers, group = line.split(":", 2)
        within = Path(group.lstrip("/"))
        for level in (within, *within.parents):
            if not controllers:
                found.append(CGROUPS / level / "memory.max")
            elif "memory" in controllers.split(","):
                found.append(CGROUPS / "memory" / level / "memory.limit_in_bytes")
    return found


def open_file_limit() -> tuple[int, int]:
    """Soft and hard limit of open files, in descriptors. "unlimited" is converted to the number it grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _granted(soft), _granted(hard)


def raise_open_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return the limit now in force.

    Each WebSocket needs a descriptor, and the usual soft limit of 1,024 would allow about 1,000 clients.
    """
    soft, hard = open_file_limit()
    if soft < hard:
        _, kept = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, kept))
    return max(soft, hard)


def collect_seldom() -> None:
    """Collect garbage every 5,000 new objects instead of every 700, and never scan existing objects.

    A node creates hundreds of objects for each request and hardly a reference cycle. Collections took a tenth
    of the time of a read request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 50, 200)


def _granted(limit: int) -> int:
    return UNLIMITED_STANDS_FOR if limit == resource.RLIM_INFINITY else limit
