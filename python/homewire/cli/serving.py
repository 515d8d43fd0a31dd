"""`run`, `router` and `api` start the server with its tiers, and print its URLs once it is ready."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from homewire.cli.options import Json, serving_command
from homewire.errors import HomewireError
from homewire.settings import Settings

if TYPE_CHECKING:
    from homewire.app import Node
    from homewire.demo import Demo

WithDemo = Annotated[
    bool,
    typer.Option(
        "--demo", help="On an empty deployment create a demo, whose devices are this machine's own sensors."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to the command tree."""
    serving_command(app, "run")(run)
    serving_command(app, "router")(router)
    serving_command(app, "api")(api)


def run(settings: Settings, demo: WithDemo = False, as_json: Json = False) -> None:
    """Run router and REST tier in one process."""
    _serve(settings, ["router", "api"], demo, as_json)


def router(settings: Settings, as_json: Json = False) -> None:
    """Run the realtime tier alone: WebSockets and events in."""
    _serve(settings, ["router"], False, as_json)


def api(settings: Settings, as_json: Json = False) -> None:
    """Run the REST tier alone."""
    _serve(settings, ["api"], False, as_json)


def _serve(settings: Settings, tiers: list[str], demo: bool, as_json: bool) -> None:
    """Serve until a signal stops the process."""
    from homewire.app import Tier, serve

    unsent = unsent_kinds(settings) if "api" in tiers else []

    async def background(node: Node) -> None:
        await _accompany(settings, node, demo, unsent, as_json)

    main = serve(settings, frozenset(map(Tier, tiers)), background)
    if settings.event_loop == "uvloop":
        import uvloop

        uvloop.run(main)
    else:
        asyncio.run(main)


async def _accompany(
    settings: Settings, node: Node, with_demo: bool, unsent: list[str], as_json: bool
) -> None:
    """Announce that the server is ready, and run the demo's sensors.

    The sensors are clients like any other, so they cannot block the server.
    """
    if not with_demo:
        _announce(settings, node, None, unsent, as_json)
        return
    from homewire.sensors import Reporter, Sensors
    from homewire.tls import trust

    # Read now, while the file still has the certificate with which the port was opened.
    tls = trust(settings, node.base_url)
    sensors = await asyncio.to_thread(Sensors)
    readings = await asyncio.to_thread(sensors.read)
    demo = await _demo(settings, {name: reading.device_class for name, reading in readings.items()})
    _announce(settings, node, demo, unsent, as_json)
    if demo is not None:
        await Reporter(node.base_url, sensors, demo.homes[0].devices, tls).run()


async def _demo(settings: Settings, sensors: dict[str, str]) -> Demo | None:
    """The demo, or None if it can't be created. The error is logged, and the server runs without a demo."""
    from homewire.cli.scope import open_store
    from homewire.demo import of_this_machine

    try:
        async with open_store(settings) as store:
            return await of_this_machine(store, settings, sensors)
    except HomewireError as error:
        import structlog

        structlog.get_logger(__name__).error("no demo", problem=str(error))
        return None


def _program() -> str:
    """The command that starts this program from the current directory."""
    started = sys.argv[0]
    if os.path.basename(started) == "__main__.py":
        return f"{os.path.relpath(sys.executable)} -m homewire.cli"
    return os.path.relpath(started) if os.path.isabs(started) else started


def _announce(settings: Settings, node: Node, demo: Demo | None, unsent: list[str], as_json: bool) -> None:
    if as_json:
        import orjson

        urls = {"url": node.base_url, "adminUrl": node.admin_url}
        ready = {**urls, "dataDir": str(settings.data_dir), "pid": os.getpid()}
        print(orjson.dumps(ready).decode(), flush=True)
        return
    print(f"\nhomewire is ready at {node.base_url} (metrics: {node.admin_url}/metrics)", flush=True)
    if unsent:
        print(unsent_line(settings, unsent), flush=True)
    if demo is not None:
        print("\n".join(next_steps(settings, node.base_url, demo)), flush=True)


def unsent_kinds(settings: Settings) -> list[str]:
    """The kinds of messages for which no sender is configured."""
    senders = {"E-mails": settings.smtp_host, "SMS": settings.sms_url}
    return [name for name, sender in senders.items() if sender is None]


def unsent_line(settings: Settings, unsent: list[str]) -> str:
    """A line that says how to see stored messages."""
    where = "" if settings.data_dir == Settings().data_dir else f" --data-dir {settings.data_dir}"
    return (
        f"{' and '.join(unsent)} to users are stored, not sent. Show them with: {_program()} messages{where}"
    )


def next_steps(settings: Settings, base: str, demo: Demo) -> list[str]:
    """Commands that a new user can copy into another terminal.

    They contain the demo's keys, so they are printed on the terminal and never logged.
    """
    from homewire.demo import keys_path

    program = _program()
    options = "" if base == Settings().base_url else f" --url {base}"
    if settings.data_dir != Settings().data_dir:
        options += f" --data-dir {settings.data_dir}"
    curl = "curl"
    websocat = "websocat"
    if settings.tls_cert is not None:
        options += f" --tls-cert {settings.tls_cert}"
        curl += f" --cacert {settings.tls_cert}"
        websocat = f"SSL_CERT_FILE={settings.tls_cert} {websocat}"
    home, user = demo.homes[0], demo.users[0]
    socket = f"{base.replace('http', 'ws', 1)}/userSession/websocket?homeId={home.home_id}"
    first = home.devices[0] if home.devices else None
    return [
        "",
        "Receive the events of this machine's sensors, all or of one of them:",
        f"  {program} listen{options}",
        *([f"  {program} listen --device {first.device_id}{options}"] if first else []),
        "Or use any WebSocket client:",
        f"  {websocat} -H 'Authorization: ModeCloud {user.key}' '{socket}'",
        "Send an event to the home, with the command or with curl:",
        f"  {program} send --home {home.home_id} --type doorbell --data '{{\"rings\": 2}}'{options}",
        f"  {curl} -X PUT {base}/homes/{home.home_id}/event -H 'Authorization: ModeCloud {demo.project_key}'"
        ' -H \'Content-Type: application/json\' -d \'{"eventType": "doorbell", "eventData": {"rings": 2}}\'',
        f"All keys of the demo: {keys_path(settings.data_dir)}. Stop with Ctrl-C.",
        "",
    ]
