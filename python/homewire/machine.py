"""Limits of the operating system and of Python that a server of many sockets must lift."""

from __future__ import annotations

import gc
import os
import resource
from pathlib import Path

# macOS says "unlimited" and then refuses more than this (OPEN_MAX of its headers).
UNLIMITED_STANDS_FOR = 10_240


YOUNG_OBJECTS = 5_000
"""More than are made by what is under way at one time, so that few of them are looked at in vain."""

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def memory_bytes() -> int:
    """The memory that this process may count on: the machine's, or less in a container that is given less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    granted = [path.read_text().strip() for path in cgroup_limits() if path.exists()]
    # "max" where there is no limit.
    return min([machine, *(int(text) for text in granted if text.isdigit())])


def cgroup_limits() -> list[Path]:
    """Where limits of memory may stand: of this process' control groups and all above (version 2, then 1).

    Inside a container its own group is the root; the unit of a service is some levels below.
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


def collect_seldom() -> None:
    """Look for cycles of garbage every 5,000 new objects instead of every 700, never in what is there now.

    A node makes hundreds of objects for each request and hardly a cycle: looking for them took a tenth of the
    time of a read.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 50, 200)


def _granted(limit: int) -> int:
    return UNLIMITED_STANDS_FOR if limit == resource.RLIM_INFINITY else limit
