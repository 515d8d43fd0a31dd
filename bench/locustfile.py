"""Acceptance load by locust: users listen to homes over WebSocket while devices put events over HTTP.

    homewire demo --homes 20 --devices 2 --users 50 --json > demo.json
    HOMEWIRE_DEMO=demo.json locust -f bench/locustfile.py --headless -u 70 -r 10 -t 30s --host http://127.0.0.1:8080

Locust knows HTTP only: what the WebSockets do is reported by firing its request event by hand. It reaches a
few thousand messages per second, enough for acceptance; for load there is `python -m bench`.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import websocket
from locust import User, between, events, task
from locust.exception import StopUser

OPEN_S = 10
MILLISECONDS = 1000


def _demo() -> dict[str, Any]:
    demo: dict[str, Any] = json.loads(Path(os.environ["HOMEWIRE_DEMO"]).read_text())
    return demo


DEMO = _demo() if "HOMEWIRE_DEMO" in os.environ else {"users": [], "homes": []}
USERS = itertools.cycle(DEMO["users"])
HOMES = itertools.cycle(DEMO["homes"])
DEVICES = itertools.cycle([device for home in DEMO["homes"] for device in home["devices"]])


def check(environment: Any, **_: Any) -> None:
    """Fails without a demo: otherwise a run would measure nothing and succeed."""
    if not DEMO["users"] or not DEMO["homes"]:
        environment.process_exit_code = 2
        environment.runner.quit()
        raise SystemExit("HOMEWIRE_DEMO must name the output of `homewire demo --json`")


events.test_start.add_listener(check)  # type: ignore[no-untyped-call]


class _Reporting(User):
    abstract = True

    def report(
        self, kind: str, name: str, start: float, size: int = 0, error: Exception | None = None
    ) -> None:
        """Fire locust's request event; times in milliseconds."""
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=(time.perf_counter() - start) * MILLISECONDS,
            response_length=size,
            exception=error,
            context={},
        )


class HomeListener(_Reporting):
    """A user who subscribes to one home and checks that each device's events are complete and ordered."""

    weight = 5

    def on_start(self) -> None:
        """Open the WebSocket."""
        address = urlsplit(str(self.host))
        key, home = next(USERS)["key"], next(HOMES)["homeId"]
        self.last: dict[int, int] = {}
        start = time.perf_counter()
        try:
            self.socket = websocket.create_connection(
                f"ws://{address.netloc!s}/userSession/websocket?homeId={home}",
                header=[f"Authorization: ModeCloud {key}"],
                timeout=OPEN_S,
            )
        except (OSError, websocket.WebSocketException) as error:
            self.report("WS", "open", start, error=error)
            raise StopUser from error
        self.report("WS", "open", start)
        self.socket.settimeout(None)

    def on_stop(self) -> None:
        """Close it."""
        socket = getattr(self, "socket", None)
        if socket is not None:
            socket.close()

    @task
    def receive(self) -> None:
        """Receive one event. Its response time is the time since the request."""
        try:
            text = self.socket.recv()
        except (OSError, websocket.WebSocketException) as error:
            self.report("WS", "receive", time.perf_counter(), error=error)
            raise StopUser from error
        event = json.loads(text)
        data = event.get("eventData") or {}
        if event.get("eventType") != "locust":
            return
        device, sequence = int(event["originDeviceId"]), int(data["seq"])
        due = self.last.get(device, sequence - 1) + 1
        self.last[device] = sequence
        wrong = None if sequence == due else ValueError(f"event {sequence} came, {due} was due")
        self.report("WS", "event", float(data["sent"]), len(text), wrong)


class Device(_Reporting):
    """A device that puts an event about once a second."""

    weight = 2
    wait_time = between(0.5, 1.5)

    def on_start(self) -> None:
        """Take a device of its own; its events are numbered."""
        import requests

        device = next(DEVICES)
        self.sequence = 0
        self.url = f"{self.host}/devices/{device['deviceId']}/event"
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"ModeCloud {device['key']}"

    @task
    def put(self) -> None:
        """One event."""
        start = time.perf_counter()
        body: Any = {"eventType": "locust", "eventData": {"seq": self.sequence, "sent": start}}
        error: Exception | None = None
        try:
            answer = self.session.put(self.url, json=body, timeout=OPEN_S)
            if answer.status_code != 204:
                error = ValueError(f"{answer.status_code} {answer.text[:200]}")
        except OSError as failure:
            error = failure
        else:
            self.sequence += 1
        self.report("PUT", "/devices/{id}/event", start, error=error)
