"""The address of a node: a note in its data directory, for commands on the same machine.

A node that was killed leaves its note, and its process id may belong to another process by now. So a node
holds a `flock` on its note while it listens, and a note without a lock is ignored. A node with an external
Redis has such a note, too.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import structlog

NOTE: Final = "node.json"
_NOTE_BYTES: Final = 4096

_log = structlog.get_logger(__name__)


class NodeAddress(msgspec.Struct):
    """The note of a node."""

    url: str
    pid: int


@contextmanager
def noted(data_dir: Path, url: str) -> Iterator[None]:
    """Write the note while the block runs, unless the directory does not exist or cannot be written."""
    path = data_dir / NOTE
    try:
        held = _write(path, NodeAddress(url, os.getpid()))
    except OSError as error:
        # A node with an external Redis needs no data directory, and the note is no reason to create one.
        _log.info("node.address_not_noted", path=str(path), problem=error.strerror)
        yield
        return
    try:
        yield
    finally:
        _remove(path, held)
        os.close(held)


def running_node(data_dir: Path) -> str | None:
    """The URL of the node that uses a data directory. None without a node, and if its note cannot be read."""
    try:
        descriptor = os.open(data_dir / NOTE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    finally:
        os.close(descriptor)
    return None


def _write(path: Path, note: NodeAddress) -> int:
    """Write a note that is complete and locked when it appears, and that only its owner can read.

    Returns the descriptor that holds the lock. Raises OSError.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, msgspec.json.encode(note))
        draft.replace(path)
    except BaseException:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
        raise
    return descriptor


def _read(descriptor: int) -> str | None:
    try:
        return msgspec.json.decode(os.read(descriptor, _NOTE_BYTES), type=NodeAddress).url
    except (msgspec.DecodeError, OSError):
        return None


def _remove(path: Path, held: int) -> None:
    """Remove the note, unless another node has replaced it."""
    try:
        if os.path.samestat(path.stat(), os.fstat(held)):
            path.unlink()
    except OSError:
        pass
