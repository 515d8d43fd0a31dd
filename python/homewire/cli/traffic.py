"""`demo`, `listen` and `send`: a demo house, receiving events, sending events."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from homewire import demo as demo_room
from homewire.cli.options import DataDir, Json, Key, KeyFile, TlsCa, TlsCert, Url, given_key, loaded
from homewire.cli.output import Answer, complain, printable
from homewire.cli.scope import Scope, command
from homewire.demo import Demo, Plan
from homewire.errors import ConfigurationError
from homewire.settings import Settings

if TYPE_CHECKING:
    from homewire.client import Client, Lost, Restored

Homes = Annotated[int, typer.Option(min=0, help="How many homes.")]
Devices = Annotated[int, typer.Option(min=0, help="How many devices in each home.")]
Users = Annotated[int, typer.Option(min=1, help="How many users; each is a member of every home.")]

_NO_LINE_ENDS: Final = dict.fromkeys(map(ord, "\r\n"))


def register(app: typer.Typer) -> None:
    """Add the commands to the command tree."""
    command(app, "demo", changes=True)(demo)
    app.command("listen")(listen)
    app.command("send")(send)


async def demo(scope: Scope, homes: Homes = 1, devices: Devices = 1, users: Users = 1) -> Answer:
    """Create a project with homes, devices and users in it, and show all their keys this once.

    A demo for which the settings leave no room is refused before anything is created.
    """
    plan = Plan(homes, devices, users)
    demo_room.require_room(plan, scope.settings)
    with _progress(plan.steps) as made_one:
        made = await demo_room.create(scope.store, plan, made_one)
    return made.as_json()


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar if standard error is a terminal. Yields the function to call for each step."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("creating", total=steps)
        yield lambda: progress.advance(task)


def listen(
    home: Annotated[list[int] | None, typer.Option(help="Home id; repeat for more.")] = None,
    device: Annotated[list[int] | None, typer.Option(help="Device id; repeat for more.")] = None,
    entity: Annotated[list[str] | None, typer.Option(help="Entity id; repeat for more.")] = None,
    commands: Annotated[
        bool,
        typer.Option("--commands", help="Not events but commands: those to the one --device, with its key."),
    ] = False,
    url: Url = None,
    key: Key = None,
    key_file: KeyFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Show events as they arrive, until interrupted. Without a filter: all homes of the user.

    Each outage and its end is a line on standard error.

    \b
    homewire listen --home 4
    homewire listen --commands --device 17
    """
    from homewire.client import Filter

    settings = loaded(data_dir=data_dir, tls_ca=tls_ca, tls_cert=tls_cert)
    given = given_key(key, key_file)
    if commands:
        if home or entity or device is None or len(device) != 1:
            raise typer.BadParameter("commands are those of one device", param_hint="--device")
        listener_key = given or _sender(_kept(settings), device[0])
    else:
        listener_key = given or _kept(settings).users[0].key
    chosen, tell = Filter(home or (), device or (), entity or ()), _tell(as_json)

    async def run() -> None:
        async with _client(settings, url, listener_key) as client:
            if commands:
                await client.listen_commands(
                    chosen.devices[0], _print_raw if as_json else _print_command, tell
                )
            else:
                await client.listen(chosen, _print_raw if as_json else _print_event, tell)

    asyncio.run(run())


def send(
    home: Annotated[int | None, typer.Option(help="Home that the event is about.")] = None,
    device: Annotated[
        int | None, typer.Option(help="Device that reports the event, or gets the command.")
    ] = None,
    event_type: Annotated[str | None, typer.Option("--type", help="eventType of the event to send.")] = None,
    entity: Annotated[str | None, typer.Option(help="entityId of the event.")] = None,
    action: Annotated[str | None, typer.Option("--command", help="Action of the command to send.")] = None,
    queue: Annotated[
        int | None,
        typer.Option(
            metavar="SECONDS",
            help="Keep the command so long for a device that is offline; else it is dropped.",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="JSON", help="eventData or parameters, a JSON object.")
    ] = None,
    url: Url = None,
    key: Key = None,
    key_file: KeyFile = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Send one event (--type) to a home or as a device, or one command (--command) to a device.

    \b
    homewire send --home 4 --type doorbell --data '{"rings": 2}'
    homewire send --device 17 --command on --queue 600
    """
    if (event_type is None) == (action is None):
        raise typer.BadParameter("give one of the two", param_hint="--type / --command")
    if (home is None) == (device is None) or (action is not None and device is None):
        raise typer.BadParameter(
            "an event takes one of the two, a command a device", param_hint="--home / --device"
        )
    if queue is not None and action is None:
        raise typer.BadParameter("only commands can be queued", param_hint="--queue")
    settings = loaded(data_dir=data_dir, tls_ca=tls_ca, tls_cert=tls_cert)
    path, body = _request(home, device, event_type, entity, action, _object(data))
    if queue is not None:
        path += f"?queue={queue}"
    sender = given_key(key, key_file) or _sender(_kept(settings), None if action else device)

    async def run() -> None:
        async with _client(settings, url, sender) as client:
            await client.put(path, body)

    asyncio.run(run())
    print('{"sent":true}' if as_json else "sent")


def _tell(as_json: bool) -> Callable[[Lost | Restored], None]:
    """A function that reports on standard error when the connection is lost and when it is back."""
    from homewire.client import Lost

    def tell(change: Lost | Restored) -> None:
        if isinstance(change, Lost):
            line = f"connection lost ({printable(change.problem)}); connecting again"
            machine: dict[str, Any] = {"connection": "lost", "problem": change.problem}
        else:
            line = f"connected again after {change.after_s:.1f} s; events of the outage were not received"
            machine = {"connection": "restored", "afterS": round(change.after_s, 3)}
        complain(line, machine if as_json else None)

    return tell


def _client(settings: Settings, url: str | None, key: str) -> Client:
    """Of the homewire at `url`, or of this machine's own. Raises ConfigurationError."""
    from homewire.client import Client
    from homewire.node_address import running_node
    from homewire.tls import trust

    where = url or running_node(settings.data_dir) or settings.base_url
    return Client(where, key, tls=trust(settings, where))


def _request(
    home: int | None,
    device: int | None,
    event_type: str | None,
    entity: str | None,
    action: str | None,
    data: Any,
) -> tuple[str, dict[str, Any]]:
    """Path and body of the PUT."""
    if action is not None:
        body = {"action": action, "parameters": data}
        path = f"/devices/{device}/command"
    else:
        body = {"eventType": event_type, "eventData": data, "entityId": entity}
        path = f"/devices/{device}/event" if device is not None else f"/homes/{home}/event"
    return path, {name: value for name, value in body.items() if value is not None}


def _object(text: str | None) -> Any:
    if text is None:
        return None
    import json

    try:
        # Not orjson: an integer above 64 bits must leave as it came.
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise typer.BadParameter("must be a JSON object", param_hint="--data")
    return value


def _kept(settings: Settings) -> Demo:
    """The demo's keys. Raises ConfigurationError where there are none."""
    kept = demo_room.read_keys(settings.data_dir)
    if kept is None:
        raise ConfigurationError(
            f"no key: {demo_room.keys_path(settings.data_dir)} does not exist. Name a key by HOMEWIRE_KEY or "
            "--key-file, or the data directory of a demo with --data-dir"
        )
    return kept


def _sender(kept: Demo, device: int | None) -> str:
    """The key to send with: the device's own for its events, else the project's."""
    if device is None:
        return kept.project_key
    for home in kept.homes:
        for candidate in home.devices:
            if candidate.device_id == device:
                return candidate.key
    raise ConfigurationError(f"device {device} is none of the demo's; name its key with --key-file")


def _print_raw(text: str) -> None:
    # One line for each event: in JSON line ends stand only between tokens, where its sender had them.
    print(text.translate(_NO_LINE_ENDS), flush=True)


def _print_event(text: str) -> None:
    event = _decoded(text)
    if event is None:
        print(printable(text), flush=True)
        return
    where = [f"home {event.get('homeId')}"]
    if "originDeviceId" in event:
        where.append(f"device {event['originDeviceId']} ({event.get('originDeviceClass', '?')})")
    if "entityId" in event:
        where.append(f"entity {event['entityId']}")
    what = f"{event.get('eventType')}  {_compact(event.get('eventData', {}))}"
    print(printable(f"{event.get('timestamp')}  {', '.join(where)}  {what}"), flush=True)


def _print_command(text: str) -> None:
    command = _decoded(text)
    if command is None:
        print(printable(text), flush=True)
        return
    # A command has no timestamp: it arrives as it was sent.
    print(printable(f"{command.get('action')}  {_compact(command.get('parameters', {}))}"), flush=True)


def _decoded(text: str) -> Any:
    """The object of a message, None where Python can't read it: a number may have too many digits."""
    import json

    try:
        # Not orjson: integers above 64 bits and unpaired surrogates are JSON, too.
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _compact(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
