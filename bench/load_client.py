"""The Rust load client: building it, listeners, publishers."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.servers import LOAD_CORE, ROOT, BenchError, Process, pinned

PUBLISH_DEADLINE_S = 600


def binary() -> str:
    """The path of the load client; cargo builds it if its sources are newer."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--package", "homewire-load"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return str(target / "release" / "load")


@contextmanager
def lines_file(lines: Sequence[str]) -> Iterator[str]:
    """A file of lines, readable by its owner alone (it holds keys), while the block runs."""
    with tempfile.NamedTemporaryFile("w", prefix="hwbench") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        yield file.name


class Listener:
    """Connections that are open as long as the block lasts."""

    def __init__(self, process: Process, ready: dict[str, Any]) -> None:
        self.process = process
        self.connect_s: float = ready["seconds"]

    def result(self) -> dict[str, Any]:
        """What was received. Waits for the expected number of messages, or until nothing comes any more."""
        found: dict[str, Any] = json.loads(self.process.line())
        return found


@contextmanager
def listen(
    load: str,
    port: int,
    requests: Sequence[str],
    *,
    expected: int = 0,
    skip: int = 0,
    lanes: int = 1,
    sample: int = 1,
    idle: bool = False,
    pause_us: int = 0,
    concurrency: int = 64,
    subject: str = "",
    welcome: bool = False,
) -> Iterator[Listener]:
    """Open one connection per request line (``path?query authorization``), and yield when all are open.

    `expected` events per connection, latencies of every `sample`-th of those numbered from `skip` on.
    `idle`: only hold the connections. `pause_us`: after each look at the sockets look at nothing for so long.
    `subject`: speak NATS, and subscribe to that. `welcome`: the first message of a connection only says that
    it is subscribed.
    """
    with lines_file(requests) as path:
        command = [load, "listen", "--target", f"127.0.0.1:{port}", "--requests", path]
        command += ["--expected", str(expected), "--skip", str(skip), "--lanes", str(lanes)]
        command += ["--sample", str(sample), "--concurrency", str(concurrency)]
        command += ["--pause-us", str(pause_us)]
        command += ["--nats", subject] if subject else []
        command += ["--welcome"] if welcome else []
        with Process([*command, "--idle"] if idle else command, LOAD_CORE) as process:
            word, _, rest = process.line().partition(" ")
            if word != "ready":
                raise BenchError(f"the listener said {word}")
            yield Listener(process, json.loads(rest))


def publish(
    load: str,
    port: int,
    targets: Sequence[str],
    *,
    mode: str,
    events: int,
    authorization: str = "",
    rate: float = 0,
    batch: int = 500,
    connections: int = 1,
    depth: int = 1,
    pad: int = 0,
    first: int = 0,
    path: str = "/events",
    accepted: str = '"status":204',
) -> dict[str, Any]:
    """Publish events and wait for all answers; the publisher's own account.

    `mode` put, post (events), value or get: `targets` are ``path authorization``. bulk: home ids, sent
    `batch` at a time to `path`, each answered by `accepted`; publications: the same with Centrifugo's
    channels. `rate` is in events per second (0: as fast as answered), `first` the number of each home's
    first event.
    Raises BenchError unless everything was accepted.
    """
    with lines_file(targets) as file:
        command = [load, "publish", "--target", f"127.0.0.1:{port}", "--targets", file, "--mode", mode]
        command += ["--events", str(events), "--rate", str(rate), "--batch", str(batch)]
        command += ["--connections", str(connections), "--depth", str(depth), "--pad", str(pad)]
        command += ["--first-sequence", str(first), "--authorization", authorization]
        command += ["--path", path, "--accepted", accepted]
        done = subprocess.run(
            pinned(command, LOAD_CORE),
            capture_output=True,
            text=True,
            timeout=PUBLISH_DEADLINE_S,
            check=False,
        )
    if done.returncode != 0:
        raise BenchError(f"publishing failed: {done.stderr.strip()} {done.stdout.strip()}")
    account: dict[str, Any] = json.loads(done.stdout)
    return account
