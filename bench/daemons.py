"""Servers that are programs of their own, beside the fan-outs if they are there: NATS, Nchan, Centrifugo.

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
from urllib.parse import quote

from bench import load_client, servers
from bench.contestants import SEQUENCE_DIGITS, Contestant, Plan, listening_port
from bench.peers import common
from bench.peers.nats_publisher import SUBJECT
from bench.servers import LOAD_CORE, ROOT, SERVER_CORE, BenchError, Process

DAEMONS = ("nats", "nchan", "centrifugo")
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

CENTRIFUGO_CONFIGURATION = {
    "http_server": {"address": "127.0.0.1"},
    "http_api": {"insecure": True},
    "uni_websocket": {"enabled": True},
    "client": {
        "allowed_origins": ["*"],
        "allow_anonymous_connect_without_token": True,
        # No ping within a run: the load client takes each message for an event.
        "ping_interval": "600s",
        "pong_timeout": "10s",
    },
    "channel": {
        "without_namespace": {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}
    },
    "log": {"level": "error"},
}
"""In memory, without history: nothing that it acknowledges is stored."""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{TOOLS / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")


def _nginx() -> tuple[str, Path] | None:
    """nginx with the Nchan module that was built for it, or None."""
    for root in (TOOLS / "nginx", Path("/")):
        program = root / "usr/sbin/nginx"
        if program.is_file() and (root / MODULE).is_file():
            return str(program), root / MODULE
    return None


def missing(name: str) -> str:
    """Why this contestant cannot take part; empty if it can."""
    found = _nginx() if name == "nchan" else _program({"nats": "nats-server"}.get(name, name))
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


class Centrifugo(Contestant):
    """Centrifugo: unidirectional WebSockets, each subscribed to the channel of its home, and the HTTP API."""

    welcome = True

    def __init__(self, load: str, process: Process, port: int, plan: Plan) -> None:
        self.load, self.process, self.port, self.plan = load, process, port, plan
        # A push has its channel beside the data: `{"channel":"h1234","pub":{"data":…}}`.
        bare = len('{"channel":"","pub":{"data":}}') + len(_channel(plan.homes)) + len(common.bare(0))
        self.pad = max(0, plan.size - bare - SEQUENCE_DIGITS)

    def requests(self) -> list[str]:
        """One connection per client, grouped by home."""
        channels = (_channel(index % self.plan.homes) for index in range(self.plan.connections))
        subscriptions = (json.dumps({"subs": {channel: {}}}) for channel in channels)
        return [f"/connection/uni_websocket?cf_connect={quote(each)}" for each in subscriptions]

    def send(self, per_home: int, first: int) -> dict[str, Any]:
        """Through the publisher: its bulks are batches of the HTTP API."""
        plan = self.plan
        return load_client.publish(
            self.load,
            self.port,
            [_channel(home) for home in range(plan.homes)],
            mode="publications",
            events=per_home * plan.homes,
            rate=plan.rate,
            batch=plan.batch or 1,
            connections=plan.publishers,
            depth=plan.depth,
            pad=self.pad,
            first=first,
            path="/api/batch",
            accepted='"publish":',
        )


def _channel(home: int) -> str:
    return f"h{home}"


@contextmanager
def start(load: str, name: str, plan: Plan) -> Iterator[Contestant]:
    """Start one of DAEMONS. Raises BenchError if it is missing or does not start."""
    if why := missing(name):
        raise BenchError(why)
    with tempfile.TemporaryDirectory(prefix="hwbench") as directory:
        starts = {"nats": _nats, "nchan": _nchan, "centrifugo": _centrifugo}
        with starts[name](load, Path(directory), plan) as contestant:
            yield contestant


@contextmanager
def _nats(_load: str, directory: Path, plan: Plan) -> Iterator[Contestant]:
    program = _program("nats-server") or ""
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
def _nchan(load: str, directory: Path, plan: Plan) -> Iterator[Contestant]:
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


@contextmanager
def _centrifugo(load: str, directory: Path, plan: Plan) -> Iterator[Contestant]:
    program, port = _program("centrifugo") or "", servers.free_port()
    configuration = directory / "centrifugo.json"
    configuration.write_text(json.dumps(CENTRIFUGO_CONFIGURATION))
    command = [program, "-c", str(configuration), "--http_server.port", str(port)]
    with Process(command, SERVER_CORE) as process:
        servers.wait_for(lambda: _accepts(port), process)
        yield Centrifugo(load, process, port, plan)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
