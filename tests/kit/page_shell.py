"""Run the shell blocks of one document as a reader would type them, in one bash, and keep what they print."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
DOCUMENTED = "127.0.0.1:8080"
"""The node's address in the documents; the test's node has a free port instead."""
FENCE = re.compile(r"^```([a-z]*) ?([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
READY = re.compile(r"homewire is ready at http://(\S+) \(metrics: (\S+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the word behind that, its text."""

    language: str
    role: str
    text: str

    @property
    def stays(self) -> bool:
        """Whether its last command is left running."""
        return self.text.rstrip().endswith(" &")


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a document, by its path in the repository."""
    return [Block(*found) for found in FENCE.findall((ROOT / page).read_text())]


class PageShell:
    """A bash in a directory of its own. A command that fails ends it, and the block that ran raises."""

    def __init__(
        self, directory: Path, environment: dict[str, str], node: tuple[str, str] | None = None
    ) -> None:
        self.node = node
        """Host and port of the node, and the URL of its metrics, once one runs."""
        self._blocks = Path(tempfile.mkdtemp(dir=directory))
        self._count = 0
        self._pipes: list[int] = []
        for name in (".venv", "docs"):
            if not (directory / name).exists():
                (directory / name).symlink_to(ROOT / name)
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=directory,
            env=environment,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what the blocks left running, the process group that this bash leads, and wait for it."""
        with self._bash:
            os.killpg(self._bash.pid, signal.SIGTERM)
        for pipe in self._pipes:
            while self._said(pipe):
                pass
            os.close(pipe)

    def run(self, block: Block) -> str:
        """Run a block and return what it printed; of a block that stays, return once it is ready."""
        self._count += 1
        script = self._blocks / f"{self._count}.sh"
        script.write_text(block.text.replace(DOCUMENTED, self.node[0]) if self.node else block.text)
        output = script.with_suffix(".out")
        if block.stays:
            return self._start(script, output)
        self._say(f". {script} > {output} 2>&1 < /dev/null; echo done")
        if self._next_received() != "done\n":
            raise AssertionError(f"{block.text}\nfailed:\n{output.read_text()}")
        return output.read_text()

    def environment(self) -> dict[str, str]:
        """What the blocks exported so far."""
        self._say("env -0 | base64 -w 0; echo")
        text = subprocess.run(
            ["base64", "-d"], input=self._next_received(), capture_output=True, text=True, check=True
        )
        return dict(each.split("=", 1) for each in text.stdout.split("\0") if each)

    def received(self, kind: str) -> str:
        """Wait for the newest listener to print an event or command of this kind, and return the line."""
        said = ""
        while True:
            for line in said.splitlines():
                if f'"{kind}"' in line:
                    return line
            said += self._read(self._pipes[-1])

    def _start(self, script: Path, output: Path) -> str:
        os.mkfifo(output)
        pipe = os.open(output, os.O_RDONLY | os.O_NONBLOCK)
        self._pipes.append(pipe)
        before = 0 if "homewire run" in script.read_text() else self._taken_over()
        self._say(f". {script} > {output} 2>&1 < /dev/null; echo done")
        assert self._next_received() == "done\n", script.read_text()
        if "homewire run" in script.read_text():
            return self._node_ready(pipe)
        if "homewire listen" not in script.read_text():
            return self._read(pipe)
        # A listener says nothing until an event comes; the node counts its socket.
        while self._taken_over() == before:
            if select.select([pipe], [], [], 0.05)[0]:
                raise AssertionError(f"{script.read_text()}\nsaid:\n{self._read(pipe)}")
        return ""

    def _node_ready(self, pipe: int) -> str:
        said = ""
        while True:
            said += self._read(pipe)
            if ready := READY.search(said):
                self.node = (ready[1], ready[2])
                return said

    def _taken_over(self) -> float:
        """How many sockets the node has served."""
        assert self.node is not None, "no block started a node"
        with urllib.request.urlopen(self.node[1]) as answer:
            [count] = re.findall(r"^homewire_adopted_total (\S+)", answer.read().decode(), re.MULTILINE)
        return float(count)

    def _read(self, pipe: int) -> str:
        said = self._said(pipe)
        if not said:
            raise AssertionError("a command that was to stay has ended")
        return said

    @staticmethod
    def _said(pipe: int) -> str:
        """What was printed next; nothing if the program has ended."""
        select.select([pipe], [], [])
        return os.read(pipe, 65536).decode()

    def _say(self, line: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(line + "\n")
        self._bash.stdin.flush()

    def _next_received(self) -> str:
        assert self._bash.stdout is not None
        return self._bash.stdout.readline()
