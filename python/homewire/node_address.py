"""Where a node listens: a note in its data directory, for commands on the same machine.

A node that was killed leaves its note behind, and its process id may be another's by now. So the node holds
a `flock` on the note for as long as it listens, and a note without one is not believed. That works without
the lock of an embedded server, too.
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
    """Keep the note while the block runs. A directory that is not there or can't be written has none."""
    path = data_dir / NOTE
    try:
        held = _write(path, NodeAddress(url, os.getpid()))
    except OSError as error:
        # A node with an external Redis needs no data directory, and makes none for this.
        _log.info("node.address_not_noted", path=str(path), problem=error.strerror)
        yield
        return
    try:
        yield
    finally:
        _remove(path, held)
        os.close(held)


def running_node(data_dir: Path) -> str | None:
    """The URL of the node that runs on a data directory; None if none does, or its note can't be read."""
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
    """The descriptor that holds the lock. The note appears whole and locked, readable by its owner alone."""
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
    """Remove the note, unless another node on the same directory has put its own there."""
    try:
        if os.path.samestat(path.stat(), os.fstat(held)):
            path.unlink()
    except OSError:
        pass
