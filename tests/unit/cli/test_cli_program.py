"""The command line against the real embedded server: commands use the one that runs, or start one."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgpack
import pytest
import typer.main

from homewire import cli
from homewire.auth.models import PrincipalKind
from homewire.bus.shards import events_key
from homewire.cli.diagnosis import examine
from homewire.cli.program import build
from homewire.cli.scope import open_store, reachable_redis
from homewire.redis.checks import Level
from homewire.redis.connect import connect
from homewire.redis.embedded import EmbeddedServer
from homewire.repositories import Store
from homewire.settings import Settings, load, rows

T = TypeVar("T")

CLUSTER = os.environ.get("HOMEWIRE_TEST_CLUSTER") == "1"
NOBODY = "redis://user:hunter2@127.0.0.1:1/0"


class Commands:
    """Runs commands on one data directory and keeps what the last one printed."""

    def __init__(
        self, data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.data_dir = data_dir
        self.out = self.error = ""
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def run(self, *words: object) -> int:
        """Exit code of a command, from the same entry point as the installed script."""
        argv = ["homewire", *map(str, words), "--data-dir", str(self.data_dir)]
        self._monkeypatch.setattr(sys, "argv", argv)
        interrupted = signal.getsignal(signal.SIGINT)
        try:
            cli.main()
            code: Any = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            signal.signal(signal.SIGINT, interrupted)
        self.out, self.error = self._capsys.readouterr()
        return int(code)

    def json(self, *words: object) -> Any:
        """The JSON of a command that must succeed; it is all that is printed."""
        assert self.run(*words, "--json") == 0, self.error
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    def on_store(self, action: Callable[[Store], Awaitable[T]]) -> T:
        """What `action` sees in the same store."""

        async def act() -> T:
            async with open_store(load(data_dir=self.data_dir)) as store:
                return await action(store)

        return asyncio.run(act())

    def announced(self) -> list[int]:
        """The types of all control records in the shards, in the order of their changes."""

        async def act() -> list[int]:
            async with reachable_redis(Settings(data_dir=self.data_dir)) as url:
                client = connect(url)
                streams: Any = [await client.xrange(events_key(shard)) for shard in range(64)]
                await client.aclose()
            envelopes = [fields[b"e"] for stream in streams for _, fields in stream]
            # Version byte and header: kind, project, type, four subjects, and the place in the outbox.
            headers = {tuple(msgpack.Unpacker(io.BytesIO(each[1:])).unpack()) for each in envelopes}
            return [header[2] for header in sorted(headers, key=lambda header: header[7:])]

        return asyncio.run(act())


@pytest.fixture
def alone(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Commands that find no server, so that each starts and stops one."""
    for row in rows():
        monkeypatch.delenv(row.environment, raising=False)
    if CLUSTER:
        monkeypatch.setenv("HOMEWIRE_EMBEDDED_CLUSTER", "1")
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o700)
    return Commands(data_dir, capsys, monkeypatch)


@pytest.fixture
def homewire(alone: Commands) -> Iterator[Commands]:
    """Commands that find a server, as beside a node."""
    server = EmbeddedServer(alone.data_dir, "everysec", CLUSTER)
    with asyncio.Runner() as runner:
        runner.run(server.start())
        try:
            yield alone
        finally:
            runner.run(server.close())


def project(homewire: Commands, accounts: str = "email") -> int:
    return int(homewire.json("project", "create", "--name", "N", "--accounts", accounts)["projectId"])


def test_json_keys_are_exactly_those_promised(alone: Commands) -> None:
    made = alone.json("project", "create", "--name", "N", "--accounts", "email")
    assert list(made) == ["projectId"]
    p = ("--project", made["projectId"])

    key = alone.json("project-key", "create", *p, "--name", "K", "--permission", "send-event")
    assert list(key) == ["projectKeyId", "key"]
    assert alone.json("app", "create", *p, "--id", "controller_app") == {"appId": "controller_app"}

    user = alone.json(
        "user", "create", *p, "--name", "U", "--email", "u@example.com", "--password", "correct horse 9"
    )
    assert list(user) == ["userId", "key"]
    home = alone.json("home", "create", *p, "--name", "H", "--owner", user["userId"])
    assert list(home) == ["homeId"]
    device = alone.json("device", "create", *p, "--class", "C", "--home", home["homeId"], "--tag", "T")
    assert list(device) == ["deviceId", "apiKey", "claimCode"]

    other = alone.json(
        "user", "create", *p, "--name", "V", "--email", "v@example.com", "--password", "correct horse 9"
    )
    member = ("--home", home["homeId"], "--user", other["userId"])
    assert alone.json("member", "add", *member) == {"homeId": home["homeId"], "userId": other["userId"]}
    assert alone.json("member", "remove", *member) == {"homeId": home["homeId"], "userId": other["userId"]}


def test_project_is_created_as_asked(homewire: Commands) -> None:
    homewire.json(
        "project", "create", "--name", "P", "--accounts", "phone", "--access-control", "permission",
        "--on-demand-provisioning",
    )  # fmt: skip
    assert [{**line, "projectId": 0} for line in homewire.json("project", "list")] == [
        {
            "projectId": 0,
            "name": "P",
            "accounts": "phone",
            "accessControl": "permission",
            "onDemandProvisioning": True,
        }
    ]


def test_settings_of_a_project_are_set_one_by_one_and_shown(homewire: Commands) -> None:
    p = ("--project", project(homewire))
    link = "https://app.example.com/verify?t={token}"
    made = homewire.json("project", "set", *p, "--verification-url", link)
    assert made["verificationUrl"] == link
    homewire.json("project", "set", *p, "--password-reset-url", link + "&reset=1")
    shown = homewire.json("project", "show", *p)
    assert (shown["verificationUrl"], shown["passwordResetUrl"]) == (link, link + "&reset=1")
    assert homewire.json("project", "set", *p, "--verification-url", "")["verificationUrl"] is None
    assert shown["offlineCommands"] == "drop"
    assert homewire.json("project", "set", *p, "--offline-commands", "refuse")["offlineCommands"] == "refuse"
    assert shown["invitations"] == "accept"
    assert homewire.json("project", "set", *p, "--invitations", "immediate")["invitations"] == "immediate"
    assert homewire.json("project", "show", *p)["invitations"] == "immediate"
    assert homewire.run("project", "set", *p, "--verification-url", "https://app.example.com/") == 1
    assert "verificationUrl" in homewire.error
    assert homewire.run("project", "show", "--project", 99) == 1
    assert homewire.json("messages") == []


def test_project_usage_is_shown_and_recounted(homewire: Commands) -> None:
    p = ("--project", project(homewire))
    empty = homewire.json("project", "show", *p)
    assert (empty["storedBytes"], empty["storedRecords"]) == (0, 0)
    assert (empty["storedBytesLimit"], empty["storedRecordsLimit"]) == (4 * 1024**3, 5_000_000)
    homewire.json("app", "create", *p, "--id", "app")
    shown = homewire.json("project", "show", *p)
    assert (shown["storedBytes"], shown["storedRecords"]) == (300, 1)
    assert homewire.json("project", "recount", *p)["storedBytes"] == 300


def test_deleted_project_is_gone_with_its_keys(alone: Commands) -> None:
    number = project(alone)
    key = alone.json("project-key", "create", "--project", number, "--name", "K", "--permission", "read")[
        "key"
    ]
    assert alone.json("project", "delete", "--yes", "--project", number) == {"projectId": number}
    assert alone.json("project", "list") == []
    assert alone.on_store(lambda store: store.principals.lookup(key)) is None
    assert alone.run("project", "delete", "--yes", "--project", number) == 1


def test_user_key_is_a_session_of_the_user(homewire: Commands) -> None:
    number = project(homewire, "phone")
    user = homewire.json("user", "create", "--project", number, "--name", "U", "--phone", "+41791234567")
    principal = homewire.on_store(lambda store: store.principals.lookup(user["key"]))
    assert principal is not None
    assert (principal.kind, principal.project_id, principal.id) == (
        PrincipalKind.USER,
        number,
        user["userId"],
    )
    assert principal.name == "controller_app"


def test_project_key_permissions_revoke_and_rotate(homewire: Commands) -> None:
    number = project(homewire)
    words = ("project-key", "create", "--project", number, "--name", "K")
    made = homewire.json(*words, "--permission", "send-event", "--permission", "admin")
    key_id, key = made["projectKeyId"], made["key"]
    assert homewire.json("project-key", "list", "--project", number) == [
        {"projectKeyId": key_id, "name": "K", "permissions": ["admin", "send-event"]}
    ]

    rotated = homewire.json("project-key", "rotate", "--project", number, "--id", key_id)
    assert rotated["projectKeyId"] == key_id
    assert homewire.on_store(lambda store: store.principals.lookup(key)) is None
    assert homewire.on_store(lambda store: store.principals.lookup(rotated["key"])) is not None

    homewire.json("project-key", "revoke", "--project", number, "--id", key_id)
    assert homewire.on_store(lambda store: store.principals.lookup(rotated["key"])) is None
    assert homewire.json("project-key", "list", "--project", number) == []


def test_members_and_devices_are_found_without_naming_the_project(homewire: Commands) -> None:
    homewire.json("demo")
    demo = homewire.json("demo", "--users", 2)
    number, home = demo["projectId"], demo["homes"][0]
    user = demo["users"][1]["userId"]

    homewire.json("member", "remove", "--home", home["homeId"], "--user", user)
    assert homewire.on_store(lambda store: store.homes.of_user(number, user)) == []
    homewire.json("member", "add", "--home", home["homeId"], "--user", user)
    assert homewire.on_store(lambda store: store.homes.of_user(number, user)) == [home["homeId"]]

    device = home["devices"][0]
    rotated = homewire.json("device", "rotate-key", "--device", device["deviceId"])
    assert list(rotated) == ["deviceId", "apiKey"]
    assert homewire.on_store(lambda store: store.principals.lookup(device["key"])) is None
    assert homewire.on_store(lambda store: store.principals.lookup(rotated["apiKey"])) is not None


def test_devices_move_and_go(homewire: Commands) -> None:
    demo = homewire.json("demo", "--homes", 2)
    number, (first, second) = demo["projectId"], demo["homes"]
    device, key = first["devices"][0]["deviceId"], first["devices"][0]["key"]

    def place() -> Any:
        return homewire.on_store(lambda store: store.devices.locate(number, [device]))[device].home_id

    words = ("device", "move", "--device", device)
    moved = homewire.json(*words, "--home", second["homeId"])
    assert moved == {"deviceId": device, "homeId": second["homeId"]}
    assert place() == second["homeId"]
    assert homewire.json(*words, "--project", number) == {"deviceId": device, "homeId": None}
    assert place() is None
    assert homewire.run(*words, "--home", 99) == 1
    assert homewire.error == "homewire: home: there is no home 99\n"
    assert homewire.json("device", "delete", "--device", device) == {"deviceId": device}
    assert homewire.on_store(lambda store: store.principals.lookup(key)) is None
    assert homewire.run("device", "delete", "--device", device) == 1


def test_devices_are_listed(homewire: Commands) -> None:
    demo = homewire.json("demo", "--homes", 2)
    number, (first, _) = demo["projectId"], demo["homes"]
    free = homewire.json(
        "device", "create", "--project", number, "--class", "lamp", "--name", "n", "--tag", "t"
    )
    ids = [device["deviceId"] for device in first["devices"]]
    listed = homewire.json("device", "list", "--home", first["homeId"])
    assert [(each["deviceId"], each["homeId"]) for each in listed] == [
        (each, first["homeId"]) for each in ids
    ]
    assert homewire.json("device", "list", "--project", number)[-1] == {
        "deviceId": free["deviceId"],
        "homeId": None,
        "deviceClass": "lamp",
        "name": "n",
        "tag": "t",
    }
    assert homewire.run("device", "list", "--home", 99) == 1


def test_homes_are_deactivated_and_homes_and_users_deleted(homewire: Commands) -> None:
    demo = homewire.json("demo", "--homes", 2, "--users", 2)
    number, (first, second) = demo["projectId"], demo["homes"]
    owner, guest = demo["users"]
    homes = sorted(home["homeId"] for home in demo["homes"])
    assert homewire.on_store(lambda store: store.homes.of_user(number, guest["userId"])) == homes

    for word, active in (("deactivate", homes[1:]), ("activate", homes)):
        answer = homewire.json("home", word, "--home", homes[0])
        assert answer == {"homeId": homes[0], "deactivated": word == "deactivate"}
        assert homewire.on_store(lambda store: store.homes.active(number, homes)) == set(active)

    assert homewire.json("home", "delete", "--home", first["homeId"]) == {"homeId": first["homeId"]}
    assert homewire.on_store(lambda store: store.homes.of_user(number, guest["userId"])) == [second["homeId"]]
    device = first["devices"][0]["deviceId"]
    located = homewire.on_store(lambda store: store.devices.locate(number, [device]))
    assert located[device].home_id is None
    for given in ((), ("--project", number)):
        assert homewire.run("home", "delete", "--home", first["homeId"], *given) == 1
        assert homewire.error == f"homewire: home: there is no home {first['homeId']}\n"

    assert homewire.json("user", "delete", "--user", guest["userId"]) == {"userId": guest["userId"]}
    assert homewire.on_store(lambda store: store.principals.lookup(guest["key"])) is None
    members = homewire.on_store(lambda store: store.homes.members(number, second["homeId"]))
    assert [member.user_id for member in members] == [owner["userId"]]
    assert homewire.run("user", "delete", "--user", guest["userId"], "--project", number) == 1


def test_project_is_disabled_and_enabled(homewire: Commands) -> None:
    number = project(homewire)
    words = ("project-key", "create", "--project", number, "--name", "K", "--permission", "read")
    key = homewire.json(*words)["key"]
    for command, alive in (("disable", False), ("disable", False), ("enable", True)):
        assert homewire.json("project", command, "--project", number) == {"projectId": number}
        principal = homewire.on_store(lambda store: store.principals.lookup(key))
        assert (principal is not None) == alive


def test_commands_announce_their_changes(homewire: Commands) -> None:
    demo = homewire.json("demo", "--homes", 2, "--users", 2)
    number, (first, second) = ("--project", demo["projectId"]), demo["homes"]
    user = ("--user", demo["users"][1]["userId"])
    home, device = ("--home", first["homeId"]), ("--device", first["devices"][0]["deviceId"])
    words = ("project-key", "create", *number, "--name", "K", "--permission", "read")
    key = ("--id", homewire.json(*words)["projectKeyId"])
    before = len(homewire.announced())
    for command in (
        ("member", "remove", *home, *user),
        ("member", "add", *home, *user),
        ("project-key", "rotate", *number, *key),
        ("project-key", "revoke", *number, *key),
        ("device", "rotate-key", *device),
        ("device", "move", *device, "--home", second["homeId"]),
        ("device", "move", *device),
        ("device", "delete", *device),
        ("user", "delete", *user),
        ("home", "deactivate", *home),
        ("home", "activate", *home),
        ("home", "delete", *home),
        ("project", "disable", *number),
        ("project", "enable", *number),
        ("project", "delete", "--yes", *number),
    ):
        homewire.json(*command)
    assert homewire.announced()[before:] == [2, 1, 4, 4, 4, 6, 6, 5, 3, 13, 14, 7, 8, 10, 9]


def test_demo_is_of_the_size_asked_for(homewire: Commands) -> None:
    demo = homewire.json("demo", "--homes", 3, "--devices", 2, "--users", 4)
    assert list(demo) == ["projectId", "projectKey", "users", "homes"]
    assert [list(user) for user in demo["users"]] == [["userId", "key"]] * 4
    assert [list(home) for home in demo["homes"]] == [["homeId", "devices"]] * 3
    assert [list(device) for home in demo["homes"] for device in home["devices"]] == [["deviceId", "key"]] * 6

    async def seen(store: Store) -> list[Any]:
        number = demo["projectId"]
        homes = [await store.homes.of_user(number, user["userId"]) for user in demo["users"]]
        devices = [await store.devices.of_home(number, home["homeId"]) for home in demo["homes"]]
        keys = [demo["projectKey"], *(user["key"] for user in demo["users"])]
        keys += [device["key"] for home in demo["homes"] for device in home["devices"]]
        alive = [await store.principals.lookup(key) is not None for key in keys]
        return [homes, devices, alive]

    homes, devices, alive = homewire.on_store(seen)
    assert homes == [sorted(home["homeId"] for home in demo["homes"])] * 4
    assert devices == [[device["deviceId"] for device in home["devices"]] for home in demo["homes"]]
    assert alive == [True] * 11


@pytest.mark.parametrize(
    "words",
    [
        ("project-key", "list", "--project", 99),
        ("user", "create", "--project", 99, "--name", "U"),
        ("home", "create", "--project", 99, "--name", "H", "--owner", 1),
        ("device", "create", "--project", 99, "--class", "C"),
        ("member", "add", "--home", 99, "--user", 1),
        ("device", "rotate-key", "--device", 99),
        ("device", "move", "--device", 99),
        ("device", "delete", "--device", 99),
        ("user", "delete", "--user", 99),
        ("home", "delete", "--home", 99),
        ("home", "deactivate", "--home", 99),
        ("home", "activate", "--home", 99),
        ("project", "disable", "--project", 99),
        ("project", "enable", "--project", 99),
        ("run", "--workers", 2),
        ("listen",),
        ("send", "--home", 1, "--type", "t"),
        ("listen", "--key", "v1.1.x", "--url", "http://127.0.0.1:1"),
        ("listen", "--key", "v1.1.x", "--url", "127.0.0.1:8080"),
        ("send", "--home", 1, "--type", "t", "--key", "v1.1.x", "--url", "localhost"),
        ("send", "--home", 1, "--type", "t", "--key", "v1.1.x", "--url", "http://localhost:99999"),
        ("send", "--home", 1, "--type", "t", "--key", "v1.1.x", "--url", "http://localhost/behind"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(homewire: Commands, words: tuple[object, ...]) -> None:
    assert homewire.run(*words) == 1
    assert homewire.out == ""
    assert homewire.error.startswith("homewire: ")
    assert homewire.error.count("\n") == 1


@pytest.mark.parametrize("words", [("project", "list"), ("check", "--port", 0), ("run", "--port", 0)])
def test_data_directory_that_is_none_is_said_in_one_line(alone: Commands, words: tuple[object, ...]) -> None:
    alone.data_dir.rmdir()
    alone.data_dir.touch()
    assert alone.run(*words) == 1
    line = f"the data directory {alone.data_dir} cannot be used: "
    assert line in (alone.out if words[0] == "check" else alone.error)
    assert "Traceback" not in alone.error


def test_unknown_project_is_named(homewire: Commands) -> None:
    assert homewire.run("app", "create", "--project", 99, "--id", "a") == 1
    assert homewire.error == "homewire: project: there is no project 99\n"


def test_refusal_of_the_store_names_the_field(homewire: Commands) -> None:
    number = project(homewire)
    words = ("--email", "no address", "--password", "correct horse 9")
    assert homewire.run("user", "create", "--project", number, "--name", "U", *words) == 1
    assert "email" in homewire.error


@pytest.mark.parametrize(
    "words",
    [
        ("project", "create", "--name", "N"),
        ("project", "create", "--name", "N", "--accounts", "fax"),
        ("project-key", "create", "--project", 1, "--name", "K", "--permission", "everything"),
        ("app", "create", "--id", "a"),
        ("project", "disable"),
        ("device", "move", "--home", 1),
        ("demo", "--users", 0),
        ("send", "--home", 1),
        ("send", "--type", "t"),
        ("send", "--home", 1, "--command", "on"),
        ("send", "--home", 1, "--type", "t", "--data", "[1]"),
        ("fly",),
    ],
)
def test_usage_errors_exit_with_2(alone: Commands, words: tuple[object, ...]) -> None:
    assert alone.run(*words) == 2
    assert "Traceback" not in alone.error


def test_project_may_come_from_the_environment(homewire: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEWIRE_DEFAULT_PROJECT", str(project(homewire)))
    assert homewire.json("app", "create", "--id", "a") == {"appId": "a"}


def test_people_read_keys_with_a_warning(homewire: Commands) -> None:
    number = project(homewire)
    words = ("project-key", "create", "--project", number, "--name", "K", "--permission", "read")
    assert homewire.run(*words) == 0
    assert "can't be shown again" in homewire.out
    assert homewire.run("project", "list") == 0
    assert "accounts" in homewire.out.splitlines()[0]


def test_help_needs_neither_the_store_nor_the_server() -> None:
    """They are most of what a start takes."""
    heavy = "{'aiohttp', 'pydantic', 'redis', 'structlog'}"
    code = (
        "import sys; from homewire.cli.program import build; build(); "
        f"sys.exit(bool({heavy} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_running_server_is_used(tmp_path: Path) -> None:
    words = ("project", "list", "--json", "--data-dir", str(tmp_path))
    async with EmbeddedServer(tmp_path), open_store(load(data_dir=tmp_path)) as store:
        number = (await demo_project(store)).id
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "homewire.cli", *words, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert [line["projectId"] for line in json.loads(out)] == [number]
        assert EmbeddedServer.running(tmp_path) is not None
        assert await store.projects.get(number) is not None


async def demo_project(store: Store) -> Any:
    from homewire.projects.models import AccountSystem

    return await store.projects.create("running", AccountSystem.EMAIL)


def test_check_finds_the_embedded_server_fit(alone: Commands) -> None:
    alone.run("check", "--port", 0, "--json")
    answer = json.loads(alone.out)
    assert list(answer) == ["ok", "checks"]
    levels = {finding["check"]: finding["level"] for finding in answer["checks"]}
    for sound in (
        "redis",
        "redis features",
        "appendfsync",
        "maxmemory-policy",
        "maxmemory",
        "replicas",
        "port",
    ):
        assert levels[sound] == "ok", answer
    assert all(finding["advice"] for finding in answer["checks"] if finding["level"] != "ok")


def test_check_warns_of_a_send_queue_that_does_not_hold_the_largest_bulk(
    alone: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEWIRE_SEND_QUEUE_BYTES", "1MiB")
    alone.run("check", "--port", 0, "--json")
    (finding,) = (each for each in json.loads(alone.out)["checks"] if each["check"] == "settings")
    assert finding["level"] == "warning"
    assert "HOMEWIRE_SEND_QUEUE_BYTES" in finding["seen"]
    assert finding["advice"]


@pytest.mark.parametrize(
    ("host", "proxies", "level"),
    [
        ("127.0.0.1", "", None),
        ("localhost", "", None),
        ("0.0.0.0", "", "warning"),
        ("0.0.0.0", "10.0.0.0/8", "ok"),
    ],
)
def test_check_warns_of_a_balancer_that_is_not_trusted(
    alone: Commands, monkeypatch: pytest.MonkeyPatch, host: str, proxies: str, level: str | None
) -> None:
    monkeypatch.setenv("HOMEWIRE_TRUSTED_PROXIES", proxies)
    alone.run("check", "--port", 0, "--host", host, "--json")
    levels = {finding["check"]: finding["level"] for finding in json.loads(alone.out)["checks"]}
    assert levels.get("trusted proxies") == level


def test_check_without_redis_is_fatal_and_keeps_the_password(alone: Commands) -> None:
    assert alone.run("check", "--port", 0, "--redis", NOBODY) == 1
    assert "redis://127.0.0.1:1/0 does not answer" in alone.out
    assert "hunter2" not in alone.out + alone.error


def test_commands_without_redis_report_it_without_password(alone: Commands) -> None:
    assert alone.run("project", "list", "--redis", NOBODY) == 1
    assert "redis://127.0.0.1:1/0 does not answer" in alone.error
    assert "hunter2" not in alone.out + alone.error


def test_node_without_redis_reports_it_without_password(alone: Commands) -> None:
    assert alone.run("run", "--port", 0, "--redis", NOBODY) == 1
    assert "redis://127.0.0.1:1/0 does not answer" in alone.error
    assert "hunter2" not in alone.out + alone.error


async def test_check_sees_a_data_directory_that_others_read(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / "redis", "everysec") as server:
        for mode, level in ((0o700, Level.OK), (0o755, Level.WARNING)):
            tmp_path.chmod(mode)  # noqa: ASYNC240
            findings = await examine(Settings(redis_url=server.url, data_dir=tmp_path, port=0))
            [finding] = [each for each in findings if each.check == "data directory"]
            assert (finding.level, bool(finding.advice)) == (level, level is Level.WARNING)


async def test_check_sees_eviction_weak_fsync_and_a_taken_port(tmp_path: Path) -> None:
    from homewire.redis.connect import connect

    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    async with taken, EmbeddedServer(tmp_path, "everysec") as server:
        client = connect(server.url)
        await client.config_set("maxmemory-policy", "allkeys-lru")
        await client.config_set("min-replicas-to-write", 1)
        await client.config_set("maxmemory", 0)
        await client.aclose()
        findings = await examine(Settings(redis_url=server.url, data_dir=tmp_path / "other", port=port))
    levels = {finding.check: finding.level for finding in findings}
    assert levels["maxmemory-policy"] is Level.FATAL
    assert levels["maxmemory"] is Level.WARNING
    assert levels["replicas"] is Level.FATAL
    assert levels["appendfsync"] is Level.WARNING
    assert levels["port"] is Level.FATAL


async def test_check_names_owner_of_port(tmp_path: Path) -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1]); input()"
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-c", code), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    theirs = int(await other.stdout.readline())
    ours = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    # This process holds the data directory, as a node would.
    async with ours, EmbeddedServer(tmp_path, "everysec"):
        for port, level in (ours.sockets[0].getsockname()[1], Level.OK), (theirs, Level.FATAL):
            findings = await examine(Settings(data_dir=tmp_path, port=port))
            assert {finding.check: finding.level for finding in findings}["port"] is level
    await other.communicate(b"\n")


PROMISED = {
    *("run", "router", "api", "demo", "listen", "send", "check", "app create", "user create", "home create"),
    *("project create", "project list", "project delete", "member add", "member remove"),
    *("project-key create", "project-key list", "project-key revoke", "project-key rotate"),
    *("device create", "device rotate-key", "device move", "device delete", "user delete", "home delete"),
    *("home deactivate", "home activate"),
    *("project disable", "project enable"),
}


def test_every_command_explains_itself_and_speaks_json() -> None:
    def leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        for name, child in getattr(command, "commands", {}).items():
            yield from leaves(child, f"{path} {name}")
        if not hasattr(command, "commands"):
            yield path, command

    found = dict(leaves(typer.main.get_command(build()), ""))
    assert {path.strip() for path in found} >= PROMISED
    for path, command in found.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert command.help, path
        assert "--json" in options, path
        assert "--data-dir" in options, path
        assert all(getattr(parameter, "help", None) for parameter in command.params), path


def test_serving_commands_have_the_promised_flags() -> None:
    commands = typer.main.get_command(build()).commands  # type: ignore[attr-defined]
    # Those that listen and send trust, which serve nothing.
    flags = {row.flag for row in rows() if row.flag} - {"--tls-ca"}
    for name in ("run", "router", "api"):
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert flags <= options
        assert {"--host", "--port", "--data-dir", "--redis", "--workers", "--durability"} <= options
