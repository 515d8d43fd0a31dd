"""A node as a process of its own, whose handshakes and event loop a test can stop where it likes.

The settings come from the environment, as for `homewire run`. On standard input, a line each:
`pause STEP` stops handshakes before that step (`handoff.Observer`) and says `at STEP` for each that
comes there; `go STEP` lets them on. `hold` stops the event loop's thread, with the GIL in its hand,
until the next byte comes. `turn SECONDS` lets so much time pass by the node's clock and says
`turned`. `tasks` says how many tasks the loop has, `seconds` how long it has waited, `routes` what is
served: a JSON array of method and path. With `messages=BYTES` it takes the messages of clients, of which
BYTES may wait. With `broken` every operation of the REST service and every route of ingest raises, and
so does each handshake.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from dataclasses import replace
from typing import Any, NoReturn

import orjson
from aiohttp import web

from homewire import app, log
from homewire import settings as settings_table
from homewire.app import Node, Tier, running
from homewire.events.api import routes as event_routes
from homewire.events.context import EventContext
from homewire.machine import raise_open_file_limit
from homewire.operations import OPERATIONS
from homewire.realtime.core_events import ClientMessages
from homewire.settings import Settings
from kit.manual_clock import LoopTime, TurnedClock, loop_time

BUFFER = ctypes.create_string_buffer(1)


class Steps:
    """The gates of the handshake; all are open at first."""

    def __init__(self) -> None:
        self._gates: dict[str, asyncio.Event] = {}

    async def observe(self, step: str) -> None:
        gate = self._gates.get(step)
        if gate is not None:
            say(f"at {step}")
            await gate.wait()

    def pause(self, step: str) -> None:
        self._gates[step] = asyncio.Event()

    def go(self, step: str) -> None:
        self._gates.pop(step).set()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class BrokenSteps(Steps):
    """A handshake that breaks."""

    async def observe(self, step: str) -> None:
        await fail(step)


async def fail(*_whatever: object) -> NoReturn:
    raise RuntimeError(SECRET)


SECRET = "something that no client may see"


def break_everything() -> None:
    """Put handlers that raise in the place of all others."""
    node: Any = app
    node.OPERATIONS = tuple(replace(each, handler=fail) for each in OPERATIONS)
    node.event_routes = broken_routes


def broken_routes(context: EventContext) -> list[web.RouteDef]:
    return [web.RouteDef(each.method, each.path, fail, each.kwargs) for each in event_routes(context)]


def routes_of(served: web.Application) -> list[tuple[str, str]]:
    return [(route.method, route.resource.canonical) for route in served.router.routes() if route.resource]


def obey(command: str, steps: Steps, clock: TurnedClock, node: Node, waited: LoopTime) -> None:
    match command.split():
        case ["pause", step]:
            steps.pause(step)
            say(f"paused {step}")
        case ["go", step]:
            steps.go(step)
        case ["hold"]:
            say("held")
            os.set_blocking(0, True)
            # PyDLL, unlike CDLL, keeps the GIL during the call.
            ctypes.PyDLL(None).read(0, BUFFER, 1)
            os.set_blocking(0, False)
            say("released")
        case ["turn", seconds]:
            clock.turn(float(seconds))
            say("turned")
        case ["tasks"]:
            say(f"tasks {len(asyncio.all_tasks())}")
        case ["seconds"]:
            say(f"seconds {waited.seconds}")
        case ["routes"]:
            say(orjson.dumps(routes_of(node.app)).decode())
        case []:
            pass  # What was left of the line that ended a hold.
        case _:
            raise ValueError(command)


def take_message(_connection: int, _opcode: int, _payload: bytes) -> None:
    """Messages are taken and not looked at."""


async def main(settings: Settings) -> None:
    log.configure(settings.log_level, settings.log_format)
    raise_open_file_limit()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    steps, clock = Steps(), TurnedClock()
    if "broken" in sys.argv[1:]:
        steps = BrokenSteps()
        break_everything()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    commands = None
    try:
        waiting = [
            int(each.removeprefix("messages=")) for each in sys.argv[1:] if each.startswith("messages=")
        ]
        taken = ClientMessages(take_message, *waiting) if waiting else None
        async with running(
            settings, frozenset(Tier), observe=steps.observe, client_messages=taken, clock=clock
        ) as node:
            say(orjson.dumps({"url": node.base_url, "adminUrl": node.admin_url}).decode())
            # It goes on to take orders while the node goes down.
            commands = asyncio.create_task(take(stdin, steps, clock, node))
            stopped = asyncio.create_task(stop.wait())
            waited: list[asyncio.Future[Any]] = [stopped, node.failed, commands]
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if commands.done():
                # An order that raised fails its test here, rather than by its missing answer.
                commands.result()
            if node.failed.done():
                raise node.failed.result()
    finally:
        if commands is not None:
            commands.cancel()


async def take(stdin: asyncio.StreamReader, steps: Steps, clock: TurnedClock, node: Node) -> None:
    async with loop_time() as waited:
        while line := await stdin.readline():
            obey(line.decode(), steps, clock, node, waited)


if __name__ == "__main__":
    chosen = settings_table.load()
    if chosen.event_loop == "uvloop":
        import uvloop

        uvloop.run(main(chosen))
    else:
        asyncio.run(main(chosen))
