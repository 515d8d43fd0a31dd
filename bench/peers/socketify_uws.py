"""uWebSockets by way of `socketify`: its native topic publish, on its own libuv loop.

`App.run` would spin an asyncio loop beside libuv (ten thousand empty turns before it sleeps), which is
socketify's cost and not uWebSockets'. So libuv's loop is run alone, and its timers do the pacing.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.request
from typing import Any

from socketify import App, AppListenOptions, OpCode

from bench.peers import common

TOPIC = "home"
MILLISECOND = 1
SECONDS = 1000


class Server:
    """One app, its clients and the run under way."""

    def __init__(self) -> None:
        self.app = App()
        self.clients: dict[Any, None] = {}
        self.command: common.Command | None = None
        self.sent = 0
        self.start = 0.0
        self.timer: Any = None
        # No limit of uWebSockets' own: beyond one it drops messages silently. The backlog rule bounds it.
        self.app.ws(
            "/userSession/websocket",
            {
                "compression": 0,
                "idle_timeout": 0,
                "max_backpressure": 0,
                "open": self._opened,
                "close": self._closed,
            },
        )
        self.app.get("/run", self._command)

    def _opened(self, client: Any) -> None:
        client.subscribe(TOPIC)
        self.clients[client] = None

    def _closed(self, client: Any, _code: int, _message: Any) -> None:
        self.clients.pop(client, None)

    def _command(self, response: Any, request: Any) -> None:
        self.command = common.Command.parse(request.get_query("line").replace(",", " "))
        self.sent, self.start = 0, time.perf_counter()
        response.end("begun")
        interval = SECONDS / self.command.rate if self.command.rate else MILLISECOND
        self.timer = self.app.loop.uv_loop.create_timer(0, max(MILLISECOND, int(interval)), self._turn, None)

    def _backlog(self) -> int:
        clients = list(self.clients)[:: common.SAMPLE_STEP]
        return max((client.get_buffered_amount() for client in clients), default=0)

    def _turn(self, _: Any) -> None:
        command = self.command
        if command is None:
            return
        if self.sent == command.events:
            if self._backlog() == 0:
                self.command = None
                self.timer.stop()
                common.answer(command, self.start)
            return
        count = 1 if command.rate else common.TURN
        if not command.rate and self._backlog() > common.BACKLOG_EVENTS * command.size:
            return
        for _turn in range(min(count, command.events - self.sent)):
            text = common.message(command.first + self.sent, command.size)
            self.app.publish(TOPIC, text, OpCode.TEXT, False)
            self.sent += 1

    def run(self) -> None:
        """Serve until standard input ends."""
        self.app.listen(AppListenOptions(port=0, host="127.0.0.1"), self._listening)
        self.app.loop.uv_loop.run()

    def _listening(self, config: Any) -> None:
        common.say(f"listening {config.port}")
        threading.Thread(target=read_commands, args=(config.port,), daemon=True).start()


def read_commands(port: int) -> None:
    """Hand the lines of standard input to the loop: a request of our own is what wakes it."""
    for line in sys.stdin:
        query = ",".join(line.split())
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/run?line={query}", timeout=30) as response:
            response.read()
    os._exit(0)


if __name__ == "__main__":
    Server().run()
