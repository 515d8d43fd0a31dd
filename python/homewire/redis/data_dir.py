"""The data directory of an embedded server: who holds it, and where its socket is.

Two servers on one directory silently steal each other's socket and write the same append-only file,
so a `flock` on `<data_dir>/lock` is held by homewire *and* by the server (which inherits the file
descriptor): the lock lives exactly as long as the last of the two.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

from homewire.errors import ConfigurationError, DataDirInUse

MAX_SOCKET_PATH_BYTES: Final = 103 if os.uname().sysname == "Darwin" else 107
_LOCK: Final = "lock"
_SOCKET_NOTE: Final = "socket"
_SOCKET: Final = "redis.sock"
_NOTE_BYTES: Final = 32
_PROBE_RETRIES: Final = 10
_PROBE_PAUSE_S: Final = 0.02


class DataDirectory:
    """A locked data directory. `close()` gives the lock up, as far as this process is concerned."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock
        self.socket = _socket_path(path)
        # The bytes of the path: the locale's encoding need not have its letters.
        _write_whole(path / _SOCKET_NOTE, os.fsencode(self.socket))

    @classmethod
    def take(cls, path: Path) -> DataDirectory:
        """Create the directory if need be (0700) and lock it.

        Raises DirectoryInUse if somebody has it, ConfigurationError if it cannot be used.
        """
        path = path.absolute()
        _prepare(path)
        try:
            lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            _lock_exclusively(lock, path)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            return cls(path, lock)
        except BaseException:
            os.close(lock)
            raise

    def close(self) -> None:
        """Give the lock up. Once only; the server must be gone."""
        os.close(self.lock)


def socket_url(path: Path) -> str:
    """The `unix://` URL of a socket path."""
    return "unix://" + quote(str(path))


def running_url(path: Path) -> str | None:
    """The URL of the server that runs on a data directory, None if the lock is free.

    Raises ConfigurationError if that cannot be known.
    """
    return None if _held(path) is None else socket_url(noted_socket(path))


def holder(path: Path) -> int | None:
    """The id of the homewire process that runs on a data directory, None if none does or it has just begun.

    Raises ConfigurationError if that cannot be known.
    """
    noted = _held(path)
    return int(noted) if noted is not None and noted.isdigit() else None


def _held(path: Path) -> bytes | None:
    """What the holder of the lock wrote into it, None if it is free."""
    try:
        lock = os.open(path / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(lock, _NOTE_BYTES, 0).strip()
    finally:
        os.close(lock)
    return None


def noted_socket(path: Path) -> Path:
    """Where the server of a held data directory listens, or will in a moment."""
    try:
        return _noted(path)
    except FileNotFoundError:
        return path / _SOCKET


def _noted(path: Path) -> Path:
    return Path(os.fsdecode((path / _SOCKET_NOTE).read_bytes()))


def _prepare(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & 0o077:
            return
        # Only what is ours is made private: "--data-dir /tmp" must not change /tmp.
        if any(path.iterdir()) and not (path / _LOCK).exists():
            raise ConfigurationError(
                f"the data directory {path} is not empty, not homewire's and open to others; name another one"
            )
        path.chmod(0o700)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"the data directory {path} cannot be used: {error.strerror}")


def _lock_exclusively(lock: int, path: Path) -> None:
    # `_held` of another process holds the lock for some microseconds; only a lock that stays is one.
    for attempt in range(_PROBE_RETRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if attempt + 1 < _PROBE_RETRIES:
                time.sleep(_PROBE_PAUSE_S)
    noted = os.pread(lock, _NOTE_BYTES, 0).decode("ascii", "replace").strip() or "unknown"
    raise DataDirInUse(
        f"another homewire (process {noted}) runs on the data directory {path}; "
        "stop it, or name another directory with --data-dir"
    )


def _socket_path(path: Path) -> Path:
    near = path / _SOCKET
    if _fits(near):
        return near
    return _earlier_refuge(path) or _new_refuge() / _SOCKET


def _earlier_refuge(path: Path) -> Path | None:
    """The private directory of an earlier run that was killed: used again, so that none is left behind."""
    try:
        socket = _noted(path)
        found = socket.parent.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return socket if ours and _fits(socket) else None


def _new_refuge() -> Path:
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 mkdtemp makes a private directory in it
        refuge = Path(tempfile.mkdtemp(prefix="homewire-", dir=parent))
        if _fits(refuge / _SOCKET):
            return refuge
        refuge.rmdir()
    raise ConfigurationError(
        "no directory has a path short enough for a unix socket; set TMPDIR to a short one"
    )


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES


def _write_whole(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".new")
    draft.write_bytes(data)
    draft.replace(path)
