"""Secrets that a command is given: from a file or standard input, so that no list of processes shows them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from homewire.errors import ConfigurationError

STANDARD_INPUT: Final = "-"
LONGEST: Final = 64 * 1024


def given_key(key: str | None, key_file: Path | None) -> str | None:
    """The API key that was given, None for none. Raises ConfigurationError for a file that can't be read."""
    if key_file is None:
        return key or None
    return read_secret(key_file, "--key-file (HOMEWIRE_KEY_FILE)")


def read_secret(path: Path, option: str) -> str:
    """The first line of a file, or of standard input for `-`. Raises ConfigurationError naming `option`."""
    try:
        if str(path) == STANDARD_INPUT:
            text = sys.stdin.readline(LONGEST)
        else:
            with path.open(encoding="utf-8") as file:
                text = file.readline(LONGEST)
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{option}: the file can't be read: {problem}") from None
    secret = text.rstrip("\r\n")
    if not secret:
        raise ConfigurationError(f"{option}: the first line is empty")
    return secret
