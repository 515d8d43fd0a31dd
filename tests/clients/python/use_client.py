"""Uses the Python client that was generated beside it, in `homewire_client`, against a real node.

`use_client.py URL USER_KEY PROJECT_KEY HOME DEVICE` does it and prints what came of it as JSON.
`use_client.py received` reads a message of a WebSocket and prints what the client makes of it.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import sys
from typing import Any

from homewire_client import AuthenticatedClient
from homewire_client.api.devices import get_device, list_devices
from homewire_client.api.events_and_commands import send_command, send_home_event
from homewire_client.api.homes import create_home, get_home
from homewire_client.api.key_value_store import get_home_key_value_pair, put_home_key_value_pair
from homewire_client.api.rocket_chat_sessions import list_rocket_chat_sessions
from homewire_client.models import (
    Command,
    Device,
    Error,
    Event,
    EventEventDataType0,
    NewHome,
    NewValue,
    ReceivedEvent,
    SendCommandOfflineCommands,
)


def used(url: str, user_key: str, project_key: str, home: int, device: int) -> dict[str, Any]:
    user = AuthenticatedClient(url, user_key, prefix="Bearer")
    server = AuthenticatedClient(url, project_key, prefix="ModeCloud")
    devices = list_devices.sync(client=user, home_id=home)
    one = get_device.sync(device, client=user)
    assert isinstance(one, Device)
    made = create_home.sync(client=user, body=NewHome(name="Generated"))
    missing = get_home.sync(10**15, client=user)
    assert isinstance(missing, Error)
    data = EventEventDataType0.from_dict({"celsius": 21.5})
    sent = send_home_event.sync_detailed(home, client=server, body=Event("temperature", data))
    # (This generator makes no working client of an operation that takes a list, and something else as well.)
    command = send_command.sync_detailed(
        device, client=user, body=Command("open"), offline=SendCommandOfflineCommands.REFUSE
    )
    assert isinstance(command.parsed, Error)
    put_home_key_value_pair.sync_detailed(home, "mode", client=user, body=NewValue("night"))
    value = get_home_key_value_pair.sync(home, "mode", client=user)
    sessions = list_rocket_chat_sessions.sync_detailed(client=user)
    return {
        "devices": [each.device_class for each in devices],
        "device": [one.id, one.is_connected, one.creation_time.tzinfo is not None],
        "made": made.name,
        "missing": missing.reason,
        "sent": int(sent.status_code),
        "command": [int(command.status_code), command.parsed.reason],
        "value": value.value,
        "sessions": int(sessions.status_code),
    }


def received() -> dict[str, Any]:
    event = ReceivedEvent.from_dict(json.load(sys.stdin))
    return {
        "eventType": event.event_type,
        "eventData": event.event_data.to_dict(),
        "homeId": event.home_id,
        "key": event.origin_project_key_name,
        "year": event.timestamp.year,
    }


if __name__ == "__main__":
    if sys.argv[1] == "received":
        print(json.dumps(received()))
    else:
        url, user_key, project_key, home, device = sys.argv[1:]
        print(json.dumps(used(url, user_key, project_key, int(home), int(device))))
