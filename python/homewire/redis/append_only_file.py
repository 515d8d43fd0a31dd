"""Repairs the append-only file of the embedded server after a power loss.

A file system that lost power may leave zeros or old sectors behind what was written last. The server refuses
such a file, and its tool for it (`valkey-check-aof --fix`) is not in the package. What was fsynced stands in
front of the damage, so the file is cut behind its last whole command.

The layout is that of Redis 7 (multi part AOF): `appendonlydir/<name>.manifest` names one base file and the
incremental files behind it, `file <name> seq <n> type <b|i|h>` a line. Only the last incremental file was
being written, so only its end is repaired.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homewire.errors import ConfigurationError

DIRECTORY: Final = "appendonlydir"
MANIFEST: Final = "appendonly.aof.manifest"
LONGEST_TAIL: Final = 4 * 1024 * 1024
"""Bytes behind the last whole command that are cut without asking. A torn write is a few pages; damage in
front of more than this is not what a power loss leaves."""
_LONGEST_NUMBER: Final = 20
_END: Final = b"\r\n"


@dataclass(frozen=True, slots=True)
class Cut:
    """What was cut from the end of a file."""

    file: Path
    at: int
    """The file's size now, in bytes."""
    size: int
    """Bytes that were cut."""
    kept: Path
    """Where they are now."""


def cut_damaged_tail(data_dir: Path) -> Cut | None:
    """Cut the last incremental file behind its last whole command, and keep what was cut beside it.

    None when the file is whole: the server refused to start for another reason. Raises ConfigurationError
    when the damage is not at the end, and when the files cannot be read or written.
    """
    try:
        file = _last_file(data_dir / DIRECTORY)
        return None if file is None else _cut(file, data_dir)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"the append-only file in {data_dir} is damaged and can't be repaired: {error.strerror}"
        ) from error


def _last_file(directory: Path) -> Path | None:
    """The incremental file that was written last, as the manifest says."""
    last: tuple[int, str] | None = None
    for line in (directory / MANIFEST).read_bytes().decode("ascii", "replace").splitlines():
        words = line.split(" ")
        named = dict(zip(words[::2], words[1::2], strict=False))
        if named.get("type") == "i" and named.get("seq", "").isdigit():
            last = max(last or (0, ""), (int(named["seq"]), named.get("file", "")))
    return None if last is None else directory / last[1]


def _cut(file: Path, data_dir: Path) -> Cut | None:
    size = file.stat().st_size
    at = whole_bytes(file)
    if at == size:
        return None
    if size - at > LONGEST_TAIL:
        raise ConfigurationError(
            f"{file} is damaged at byte {at}, {size - at} bytes before its end: no power loss explains that. "
            "Restore a backup; or cut the file there with valkey-check-aof --fix, if what follows may be lost"
        )
    kept = _unused(data_dir / f"damaged-{file.name}-from-{at}")
    with file.open("rb+") as opened:
        opened.seek(at)
        _write_durably(kept, opened.read())
        opened.truncate(at)
        os.fsync(opened.fileno())
    return Cut(file, at, size - at, kept)


def whole_bytes(file: Path) -> int:
    """The offset behind the last whole command. A transaction (MULTI to EXEC) is whole or not at all."""
    with file.open("rb") as opened:
        if os.fstat(opened.fileno()).st_size == 0:
            return 0
        with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _whole_bytes(data)


def _whole_bytes(data: mmap.mmap) -> int:
    at = whole = 0
    is_in_transaction = False
    while (command := _command(data, at)) is not None:
        at, name = command
        if name == b"MULTI":
            is_in_transaction = True
        elif name == b"EXEC":
            is_in_transaction = False
        if not is_in_transaction:
            whole = at
    return whole


def _command(data: mmap.mmap, at: int) -> tuple[int, bytes] | None:
    """Where the command at `at` ends, and its name in upper case; None if no whole command stands there."""
    if data[at : at + 1] == b"#":
        # An annotation, such as a time stamp.
        end = data.find(_END, at)
        return None if end < 0 else (end + 2, b"")
    number = _number(data, at, b"*")
    if number is None or number[1] < 1:
        return None
    at, words = number
    name = b""
    for index in range(words):
        number = _number(data, at, b"$")
        if number is None:
            return None
        start, length = number
        at = start + length + 2
        if data[start + length : at] != _END:
            return None
        if index == 0:
            name = data[start : start + min(length, _LONGEST_NUMBER)].upper()
    return at, name


def _number(data: mmap.mmap, at: int, kind: bytes) -> tuple[int, int] | None:
    """A line of one kind and a number: where it ends, and the number."""
    end = data.find(_END, at, at + _LONGEST_NUMBER)
    digits = data[at + 1 : end]
    if end < 0 or data[at : at + 1] != kind or not digits.isdigit():
        return None
    return end + 2, int(digits)


def _unused(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number, free = number + 1, path.with_name(f"{path.name}-{number}")
    return free


def _write_durably(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())
