"""Attacks of the fairness row, each on one resource, and the requests of an honest user."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from bench import provision
from bench.hostile import Part
from bench.provision import APP, PASSWORD, World, authorization

KIB: Final = 1024
FORM: Final = "application/x-www-form-urlencoded"
UPGRADE: Final = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AQIDBAUGBwgJCgsMDQ4PEA==",
}
LOGINS_PER_S: Final = 2.0
REQUESTS_PER_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str = ""

    def text(self) -> str:
        """The request as it is sent."""
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: bench"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join([*lines, "", self.body])


@dataclass(frozen=True, slots=True)
class Honest:
    """The request that an honest user repeats, besides receiving the events of the home."""

    name: str
    request: Request
    status: int = 200
    per_s: float = REQUESTS_PER_S
    apart: bool = False
    """Whether it is measured after the deliveries, because it slows them."""


@dataclass(frozen=True, slots=True)
class Scene:
    """An honest project and a hostile one."""

    url: str
    """The URL of Redis."""
    honest: World
    hostile: World
    small: bool

    def many(self, count: int) -> int:
        """`count`, or a sixteenth of it in a small run."""
        return max(2, count // 16) if self.small else count


@dataclass(frozen=True, slots=True)
class Attack:
    """What the hostile address sends, and what is measured meanwhile."""

    parts: list[Part]
    honest: Honest


def _keyed(key: str) -> dict[str, str]:
    return {"Authorization": authorization(key)}


def _json(method: str, path: str, key: str, body: object) -> Request:
    return Request(method, path, {**_keyed(key), "Content-Type": "application/json"}, json.dumps(body))


def _get(path: str, key: str) -> Request:
    return Request("GET", path, _keyed(key))


def _part(connections: int, *requests: Request, reads: bool = True) -> Part:
    return {"connections": connections, "requests": [each.text() for each in requests], "reads": reads}


def _login(project_id: int, email: str) -> Request:
    form = {"projectId": project_id, "appId": APP, "email": email, "password": PASSWORD}
    return Request("POST", "/auth/user", {"Content-Type": FORM}, urlencode(form))


def _read_device(world: World) -> Request:
    home = world.homes[0]
    return _get(f"/devices/{home.device_id}", home.user_keys[0])


def _listen(world: World) -> Request:
    home = world.homes[0]
    path = f"/userSession/websocket?homeId={home.home_id}"
    return Request("GET", path, {**_keyed(home.user_keys[0]), **UPGRADE})


def _reads(scene: Scene) -> Honest:
    return Honest("GET device", _read_device(scene.honest))


def hash_lanes(scene: Scene) -> Attack:
    """Logins with the right password, changes of passwords, and registrations, many at once."""
    project_id, count = scene.hostile.project_id, scene.many(32)
    people = provision.accounts(scene.url, scene.hostile, 2 * count)
    logins = [_login(project_id, account.email) for account in people[:count]]
    changes = [
        _json("PATCH", f"/users/{account.user_id}", account.key, {"password": f"staple battery {number}"})
        for number in range(5)
        for account in people[count:]
    ]
    registrations = [
        Request(
            "POST",
            "/users",
            {"Content-Type": "application/json"},
            json.dumps(
                {
                    "projectId": project_id,
                    "name": "Eve",
                    "email": f"eve{number}@example.com",
                    "password": PASSWORD,
                }
            ),
        )
        for number in range(200)
    ]
    (account,) = provision.accounts(scene.url, scene.honest, 1)
    login = _login(scene.honest.project_id, account.email)
    return Attack(
        [
            _part(scene.many(64), *logins),
            _part(scene.many(32), *changes),
            _part(scene.many(32), *registrations),
        ],
        Honest("login", login, per_s=LOGINS_PER_S, apart=True),
    )


def sorted_lists(scene: Scene) -> Attack:
    """Lists that are sorted, in a file and in memory."""
    people = provision.accounts(scene.url, scene.hostile, scene.many(16))
    provision.log_in(scene.url, scene.hostile, people, sessions=scene.many(150))
    key = scene.hostile.project_key
    in_file = _get("/sessions?$sort=identity.userName,-startedAt", key)
    in_memory = _get("/sessions?$sort=-startedAt&$take=100", key)
    return Attack([_part(scene.many(32), in_file, in_memory)], _reads(scene))


def lists(scene: Scene) -> Attack:
    """A list of 3 MiB, read at full speed."""
    return Attack([_part(scene.many(32), _values(scene, scene.many(512), 6 * KIB))], _reads(scene))


def unread_answers(scene: Scene) -> Attack:
    """A list of 7.5 MiB that is not read."""
    request = _values(scene, scene.many(128), 60 * KIB)
    return Attack([_part(scene.many(64), request, reads=False)], _reads(scene))


def _values(scene: Scene, values: int, size: int) -> Request:
    provision.fill(scene.url, scene.hostile, values=values, size=size)
    home = scene.hostile.homes[0]
    return _get(f"/homes/{home.home_id}/kv", home.user_keys[0])


def stored_values(scene: Scene) -> Attack:
    """Values of 60 KiB, written repeatedly."""
    home = scene.hostile.homes[0]
    # A project of its own: the listeners of the other one count their home's events.
    honest = provision.make(scene.url, homes=1, members=1).homes[0]
    value = {"value": "x" * (60 * KIB)}
    puts = [
        _json("PUT", f"/homes/{home.home_id}/kv/v{number}", home.user_keys[0], value) for number in range(64)
    ]
    light = _json("PUT", f"/homes/{honest.home_id}/kv/light", honest.user_keys[0], {"value": 1})
    return Attack([_part(scene.many(16), *puts)], Honest("PUT value", light, status=204))


def descriptors(scene: Scene) -> Attack:
    """More idle connections than an address may have, and requests without a key."""
    health = Request("GET", "/healthz", {})
    handshake = Honest("handshake", _listen(scene.honest), status=101)
    return Attack([_part(scene.many(32), health), _part(scene.many(4_200))], handshake)


def event_loop(scene: Scene) -> Attack:
    """Reads of a device, repeated also after a refusal."""
    return Attack([_part(scene.many(64), _read_device(scene.hostile))], _reads(scene))


def send_queues(scene: Scene) -> Attack:
    """Subscribers that do not read, and the events of a device at its limit."""
    home = scene.hostile.homes[0]
    event = {"eventType": "bench", "eventData": {"x": "x" * (4 * KIB)}}
    put = _json("PUT", f"/devices/{home.device_id}/event", home.device_key, event)
    return Attack(
        [_part(scene.many(100), _listen(scene.hostile), reads=False), _part(scene.many(16), put)],
        _reads(scene),
    )


ATTACKS: Final[Mapping[str, Callable[[Scene], Attack]]] = {
    "hash-lanes": hash_lanes,
    "sorted-lists": sorted_lists,
    "lists": lists,
    "unread-answers": unread_answers,
    "stored-values": stored_values,
    "descriptors": descriptors,
    "event-loop": event_loop,
    "send-queues": send_queues,
}
"""Attacks by the shared resource that each of them uses up."""
