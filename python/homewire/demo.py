"""Demo projects: a made-up one of any size, and the one of `make run`, whose home is this machine.

The demo's keys lie in `demo.json` in the data directory, readable by its owner alone: they are the one
place where homewire keeps a key that it could show again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from homewire.errors import ConfigurationError
from homewire.projects.models import AccountSystem, KeyScope
from homewire.settings import Settings

if TYPE_CHECKING:
    from homewire.repositories import Store

T = TypeVar("T")

APP = "controller_app"
LOCAL = "127.0.0.1"
USER_AGENT = "homewire command line"
KEYS_FILE = "demo.json"
KEY_PERMISSIONS = frozenset({KeyScope.SEND_EVENT, KeyScope.SEND_COMMAND, KeyScope.READ})
IN_FLIGHT = 24
"""Changes under way at once, fewer than the client's pool has connections. One fsync serves them all."""


class DemoUser(msgspec.Struct, rename="camel"):
    """A user and a key (session) of theirs."""

    user_id: int
    key: str


class DemoDevice(msgspec.Struct, rename="camel", omit_defaults=True):
    """A device and its key; `sensor` names the part of this machine that it reports."""

    device_id: int
    key: str
    sensor: str = ""


class DemoHome(msgspec.Struct, rename="camel"):
    """A home and its devices."""

    home_id: int
    devices: list[DemoDevice]


class Demo(msgspec.Struct, rename="camel"):
    """What was made, with all keys; encodes to the JSON of `homewire demo --json`."""

    project_id: int
    project_key: str
    users: list[DemoUser]
    homes: list[DemoHome]

    def as_json(self) -> dict[str, Any]:
        """As JSON types."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


@dataclass(frozen=True, slots=True)
class Plan:
    """How large a demo is: `devices` in each home, every user a member of every home."""

    homes: int = 1
    devices: int = 1
    users: int = 1

    @property
    def steps(self) -> int:
        """How often `create` reports a created record, apart from users."""
        return self.homes * (self.users + self.devices)


@dataclass(frozen=True, slots=True)
class Need:
    """What a demo needs of something that a setting limits."""

    setting: str
    amount: int
    what: str


SESSION_CONTENT_BYTES = 400
"""What a demo's session records of its login is less."""


def needs(plan: Plan) -> list[Need]:
    """What a demo needs, once it is made and all its devices are connected and report every second."""
    # Here, because no command that only prints its help waits for the store's libraries.
    from homewire.store.accounting import COSTS

    session = COSTS["session"] + SESSION_CONTENT_BYTES
    devices = plan.homes * plan.devices
    in_homes = plan.homes * (1 + plan.users + plan.devices)
    home_bytes = COSTS["home"] + plan.users * COSTS["member"] + plan.devices * COSTS["device"]
    user_bytes = plan.users * (COSTS["user"] + session)
    project_bytes = COSTS["app"] + COSTS["project_key"] + user_bytes + plan.homes * home_bytes
    return [
        Need("homes_per_user", plan.homes, "homes, of which each user is a member"),
        # The first user creates all homes.
        Need("user_records", 1 + in_homes, "records that count for one user"),
        Need("user_bytes", session + plan.homes * home_bytes, "bytes that count for one user"),
        Need("project_records", 2 + 2 * plan.users + in_homes, "records"),
        Need("project_bytes", project_bytes, "bytes"),
        Need("project_connections", devices + plan.users, "WebSockets, one for each device and user"),
        Need("project_events_per_s", devices, "events a second, one of each device"),
    ]


def require_room(plan: Plan, settings: Settings) -> None:
    """Raise ConfigurationError, with all settings that do not allow a demo of this size."""
    refused = [
        f"{need.setting} allows {limit}, but it needs {need.amount} {need.what}"
        for need in needs(plan)
        if (limit := getattr(settings, need.setting)) and need.amount > limit
    ]
    if refused:
        raise ConfigurationError(f"the settings allow no demo of this size: {'; '.join(refused)}")


def _nothing() -> None:
    """Nobody wants to know."""


async def create(store: Store, plan: Plan, made_one: Callable[[], None] = _nothing) -> Demo:
    """Create a project of its own with everything of `plan` in it; `made_one` is called for each step."""
    demo = await _project(store, "demo", plan.users)
    owner, *others = (user.user_id for user in demo.users)
    made = await _together(
        (store.homes.create(demo.project_id, f"Home {number}", owner) for number in range(1, plan.homes + 1)),
        made_one,
    )
    homes = [home.id for home in made]
    await _together(
        (store.homes.add_member(demo.project_id, home, user) for home in homes for user in others), made_one
    )
    devices = await _together(
        (
            _device(store, demo.project_id, home, "sensor", f"sensor-{number}")
            for home in homes
            for number in range(1, plan.devices + 1)
        ),
        made_one,
    )
    for index, home in enumerate(homes):
        own = devices[index * plan.devices : (index + 1) * plan.devices]
        demo.homes.append(DemoHome(home, own))
    return demo


async def of_this_machine(store: Store, settings: Settings, sensors: Mapping[str, str]) -> Demo:
    """The demo of `make run`: made on an empty deployment, else read from its file and completed.

    `sensors` maps each sensor of this machine to its device class; one without a device yet is given
    one. Raises ConfigurationError when there are projects, but not the keys of a demo that lives.
    """
    data_dir = settings.data_dir
    kept = read_keys(data_dir)
    if kept is None or await store.principals.lookup(kept.project_key) is None:
        if await store.projects.list():
            raise ConfigurationError(_lost(data_dir))
        kept = await _project(store, "This machine", 1)
        home = await store.homes.create(kept.project_id, "This machine", kept.users[0].user_id)
        kept.homes.append(DemoHome(home.id, []))
    await _renew_sessions(store, kept)
    home_devices = kept.homes[0].devices
    known = {device.sensor for device in home_devices}
    home_devices += await _together(
        _device(store, kept.project_id, kept.homes[0].home_id, device_class, sensor, sensor)
        for sensor, device_class in sensors.items()
        if sensor not in known
    )
    write_keys(data_dir, kept)
    return kept


def keys_path(data_dir: Path) -> Path:
    """Where the demo's keys lie."""
    return data_dir / KEYS_FILE


def read_keys(data_dir: Path) -> Demo | None:
    """The demo's keys, or None where there is no such file. Raises ConfigurationError if it is damaged."""
    path = keys_path(data_dir)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Demo)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        raise ConfigurationError(
            f"{path} can't be read as the demo's keys ({type(error).__name__})"
        ) from None


def write_keys(data_dir: Path, demo: Demo) -> None:
    """Replace the file of keys atomically. Only its owner can ever read it."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = keys_path(data_dir)
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(demo), indent=2) + b"\n")
    draft.replace(path)


def _lost(data_dir: Path) -> str:
    # The keys are not rotated, because they may be in use.
    return (
        f"there are projects here, but {keys_path(data_dir)} holds no key of a living demo, and a key "
        "can't be read back. Start without --demo, or delete the projects (`homewire project list`, "
        "`homewire project delete --project ID`) for a new demo"
    )


async def _project(store: Store, name: str, users: int) -> Demo:
    """A project with an app, a project key and users, each with a key."""
    project = await store.projects.create(name, AccountSystem.EMAIL)
    await store.apps.create(project.id, APP)
    _, project_key = await store.project_keys.create(project.id, "demo", KEY_PERMISSIONS)
    made = await _together(_user(store, project.id, number) for number in range(1, users + 1))
    return Demo(project.id, project_key, made, [])


async def _user(store: Store, project_id: int, number: int) -> DemoUser:
    # No password: hashing one takes 36 ms, and a demo user signs in with the key.
    user = await store.users.create(project_id, f"User {number}", email=f"user{number}@example.com")
    return DemoUser(user.id, await open_session(store, project_id, user.id))


async def _device(
    store: Store, project_id: int, home: int, device_class: str, tag: str, sensor: str = ""
) -> DemoDevice:
    device, key, _ = await store.devices.create(project_id, device_class, home_id=home, tag=tag, name=tag)
    return DemoDevice(device.id, key, sensor)


async def _renew_sessions(store: Store, demo: Demo) -> None:
    """Open a new session for each user whose key has expired."""
    for user in demo.users:
        if await store.principals.lookup(user.key) is None:
            user.key = await open_session(store, demo.project_id, user.user_id)


async def open_session(store: Store, project_id: int, user_id: int, app_id: str = APP) -> str:
    """A new key of the user: a session opened from this machine's command line."""
    # Here, because no command that only prints its help waits for the store's libraries.
    from homewire.sessions.models import ClientInfo

    _, key = await store.sessions.open(project_id, user_id, app_id, ClientInfo(LOCAL, user_agent=USER_AGENT))
    return key


async def _together(
    changes: Iterable[Coroutine[Any, Any, T]], made_one: Callable[[], None] = _nothing
) -> list[T]:
    """Run the changes, at most IN_FLIGHT at once, and give their results in order.

    Taken lazily from the iterable: a demo of a million memberships never exists as a million tasks.
    """
    results: dict[int, T] = {}
    waiting = enumerate(changes)

    async def work() -> None:
        for number, change in waiting:
            results[number] = await change
            made_one()

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work())
    return [results[number] for number in range(len(results))]
