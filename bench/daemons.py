"""Servers that are programs of their own, beside the fan-outs if they are there: NATS and Nchan.

`bench/install_peers.sh` puts them into bench/.tools; one found on the PATH will do, too. Unlike the peers
they take each event in from a publisher on the load's core, as homewire does.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import load_client, servers
from bench.contestants import SEQUENCE_DIGITS, Contestant, Plan, listening_port
from bench.peers import common
from bench.peers.nats_publisher import SUBJECT
from bench.servers import LOAD_CORE, ROOT, SERVER_CORE, BenchError, Process

DAEMONS = ("nats", "nchan")
TOOLS = ROOT / "bench" / ".tools"
MODULE = Path("usr/lib/nginx/modules/ngx_nchan_module.so")
CONNECTIONS = 12_000
"""Sockets that either may have: the clients of the largest row, and the sixteenth that nginx keeps free."""

NATS_CONFIGURATION = """
listen: "127.0.0.1:{port}"
websocket {{ listen: "127.0.0.1:{websocket_port}", no_tls: true, compression: false }}
max_connections: {connections}
# By default a client that takes nothing for 10 s is dropped: on a shared core that may be the load client.
write_deadline: "60s"
"""

NCHAN_CONFIGURATION = """
load_module {module};
daemon off;
user {user};
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    nchan_shared_memory_size 256m;
    # By default it keeps the ten newest: enough for no publisher that is faster than its clients.
    nchan_message_buffer_length 10000;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /sub {{ nchan_subscriber websocket; nchan_channel_id home; }}
        location = /pub {{ nchan_publisher http; nchan_channel_id home; }}
    }}
}}
"""


def _nats_server() -> str | None:
    """The program, or None."""
    return shutil.which("nats-server", path=f"{TOOLS / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")


def _nginx() -> tuple[str, Path] | None:
    """nginx with the Nchan module that was built for it, or None."""
    for root in (TOOLS / "nginx", Path("/")):
        program = root / "usr/sbin/nginx"
        if program.is_file() and (root / MODULE).is_file():
            return str(program), root / MODULE
    return None


def missing(name: str) -> str:
    """Why this contestant cannot take part; empty if it can."""
    found = {"nats": _nats_server, "nchan": _nginx}[name]()
    return "" if found else f"{name}: skipped, not installed (bench/install_peers.sh installs it)"


class Nats(Contestant):
    """nats-server: WebSocket subscribers, and a publisher over TCP."""

    subject = SUBJECT

    def __init__(self, process: Process, port: int, publisher: Process, plan: Plan) -> None:
        self.process, self.port, self.publisher, self.plan = process, port, publisher, plan

    def requests(self) -> list[str]:
        """One connection per client; it subscribes by a later command."""
        return ["/"] * self.plan.connections

    def send(self, per_home: int, first: int) -> dict[str, Any]:
        """One command to the publisher."""
        self.publisher.say(common.Command(per_home, self.plan.size, self.plan.rate, first).line())
        answer: dict[str, Any] = json.loads(self.publisher.line())
        return answer


class Nchan(Contestant):
    """nginx with Nchan: WebSocket subscribers, and the load client's publisher over one HTTP connection."""

    def __init__(self, load: str, process: Process, worker: int, port: int, plan: Plan) -> None:
        self.load, self.process, self.worker, self.port, self.plan = load, process, worker, port, plan
        # What the publisher sends beside its padding.
        bare = len('{"eventType":"bench","eventData":}' + common.bare(0))
        self.pad = max(0, plan.size - bare - SEQUENCE_DIGITS)

    @property
    def pid(self) -> int:
        """The one worker: the master only waits."""
        return self.worker

    def requests(self) -> list[str]:
        """One connection per client."""
        return ["/sub"] * self.plan.connections

    def send(self, per_home: int, first: int) -> dict[str, Any]:
        """A POST per event, without batches; at full speed as many in flight as peers send in a turn."""
        plan = self.plan
        return load_client.publish(
            self.load,
            self.port,
            ["/pub"],
            mode="post",
            events=per_home,
            rate=plan.rate,
            depth=plan.depth if plan.rate else common.TURN,
            pad=self.pad,
            first=first,
        )


@contextmanager
def start(load: str, name: str, plan: Plan) -> Iterator[Contestant]:
    """Start one of DAEMONS. Raises BenchError if it is missing or does not start."""
    if why := missing(name):
        raise BenchError(why)
    with tempfile.TemporaryDirectory(prefix="hwbench") as directory:
        if name == "nats":
            with _nats(Path(directory), plan) as nats:
                yield nats
        else:
            with _nchan(load, Path(directory), plan) as nchan:
                yield nchan


@contextmanager
def _nats(directory: Path, plan: Plan) -> Iterator[Nats]:
    program = _nats_server() or ""
    port, websocket_port = servers.free_port(), servers.free_port()
    configuration = directory / "nats.conf"
    configuration.write_text(
        NATS_CONFIGURATION.format(port=port, websocket_port=websocket_port, connections=CONNECTIONS)
    )
    with Process([program, "-c", str(configuration)], SERVER_CORE) as process:
        servers.wait_for(lambda: _accepts(port) and _accepts(websocket_port), process)
        command = [sys.executable, "-m", "bench.peers.nats_publisher", str(port)]
        with Process(command, LOAD_CORE) as publisher:
            listening_port(publisher)
            yield Nats(process, websocket_port, publisher, plan)


@contextmanager
def _nchan(load: str, directory: Path, plan: Plan) -> Iterator[Nchan]:
    program, module = _nginx() or ("", MODULE)
    port = servers.free_port()
    configuration = directory / "nginx.conf"
    # Workers of a master that is root would change to another user, who may not enter the directory.
    user = pwd.getpwuid(os.geteuid()).pw_name
    configuration.write_text(
        NCHAN_CONFIGURATION.format(
            module=module, user=user, directory=directory, connections=CONNECTIONS, port=port
        )
    )
    command = [program, "-e", "stderr", "-p", str(directory), "-c", str(configuration)]
    with Process(command, SERVER_CORE) as process:
        servers.wait_for(lambda: _accepts(port) and bool(_children(process.pid)), process)
        yield Nchan(load, process, _children(process.pid)[0], port, plan)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
