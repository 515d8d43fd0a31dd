"""The data directory of the embedded server: its lock, and repair of a truncated append-only file.

Two servers on one directory would use the same socket and write the same append-only file. Therefore
homewire holds a `flock` on `<data_dir>/lock`. The server inherits the file descriptor, so the lock is held
until both processes have ended.

A power failure may leave zeros or old sectors at the end of a file. The server refuses such a file, and its
repair tool (`valkey-check-aof --fix`) is not in the package. All fsynced bytes precede the damage, so the
file is cut behind its last whole command.

The layout is that of Redis 7 (multi part AOF): `appendonlydir/<name>.manifest` names one base file and the
incremental files behind it, one line each: `file <name> seq <n> type <b|i|h>`. The server writes only to the
last incremental file, so only its end is repaired.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
import tempfile
import time
from dataclasses import dataclass
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
    """A locked data directory. `close()` releases the lock of this process."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock
        self.socket = _socket_path(path)
        # The bytes of the path: the encoding of the locale may lack its characters.
        _write_whole(path / _SOCKET_NOTE, os.fsencode(self.socket))

    @classmethod
    def take(cls, path: Path) -> DataDirectory:
        """Create the directory (0700) unless it exists, and lock it.

        Raises DataDirInUse if another process has locked it, ConfigurationError if it cannot be used.
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
        """Release the lock, once, after the server has ended."""
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
    """The id of the homewire process that runs on a data directory; None without one, or while it starts.

    Raises ConfigurationError if that cannot be known.
    """
    noted = _held(path)
    return int(noted) if noted is not None and noted.isdigit() else None


def _held(path: Path) -> bytes | None:
    """The content of the lock file; None if the lock is free."""
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
    """The socket of the server on a locked data directory. The server may still be starting."""
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
        # Only homewire's own directory is made private: "--data-dir /tmp" must not change /tmp.
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
    # `_held` of another process takes the lock for some microseconds, so the lock is tried several times.
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
    """The socket in the private directory of a killed run. It is used again, so that no directory remains."""
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


DIRECTORY: Final = "appendonlydir"
MANIFEST: Final = "appendonly.aof.manifest"
LONGEST_TAIL: Final = 4 * 1024 * 1024
"""Maximum bytes that are cut. A torn write is a few pages: a power failure does not damage more."""
_LONGEST_NUMBER: Final = 20
_END: Final = b"\r\n"


@dataclass(frozen=True, slots=True)
class Cut:
    """The bytes that were cut from the end of a file."""

    file: Path
    at: int
    """The file's size now, in bytes."""
    size: int
    """Bytes that were cut."""
    kept: Path
    """The file that has them now."""


def cut_damaged_tail(data_dir: Path) -> Cut | None:
    """Cut the last incremental file behind its last whole command, and keep the cut bytes in another file.

    None if the file is not damaged. Raises ConfigurationError if the damage is not at the end, and if the
    files cannot be read or written.
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
    """The last incremental file of the manifest."""
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
    """The end of the command at `at`, and its name in upper case; None if there is no whole command."""
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
    """The end of a line of one kind with a number, and the number."""
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
