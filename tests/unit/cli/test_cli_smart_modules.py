"""The commands on smart modules, against the real embedded server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from test_cli_program import Commands, alone, homewire

from homewire._core import event_envelope, parse_event
from homewire.cli.scope import reachable_redis
from homewire.redis.connect import connect
from homewire.repositories import Store
from homewire.settings import Settings
from homewire.store.keys import ProjectSlot

__all__ = ["alone", "homewire"]

URL = "https://hooks.example.com/token-hunter2"


@pytest.fixture
def commands(homewire: Commands) -> Commands:
    """Commands on a data directory of this test's own."""
    return homewire


@pytest.fixture
def project(commands: Commands) -> int:
    made = commands.json("project", "create", "--name", "p", "--accounts", "email")
    return int(made["projectId"])


def test_webhook_is_made_shown_switched_and_deleted(commands: Commands, project: int) -> None:
    user = commands.json(
        "user",
        "create",
        "--project",
        project,
        "--email",
        "a@example.com",
        "--name",
        "a",
        "--password",
        "correct horse 9",
    )
    home = commands.json("home", "create", "--project", project, "--name", "h", "--owner", user["userId"])
    of_module = ("--project", project, "--id", "hook")
    made = commands.json(
        *("smart-module", "create", *of_module, "--type", "webhook", "--url", URL, "--description", "lamps"),
        *("--event", "on", "--event", "off", "--home", home["homeId"]),
    )
    assert made.keys() == {"moduleId", "key"}
    assert len(made["key"]) == 64
    [listed] = commands.json("smart-module", "list", "--project", project)
    assert commands.json("smart-module", "show", *of_module) == listed
    assert listed == {
        "moduleId": "hook", "type": "webhook", "description": "lamps", "events": ["off", "on"],
        "homes": [home["homeId"]], "suspended": False, "keys": 1, "breakerOpen": False,
        "lastError": None, "lastErrorAt": None,
        "waiting": 0, "deadLetters": 0,
    }  # fmt: skip
    rotated = commands.json("smart-module", "rotate-key", *of_module)
    assert rotated.keys() == {"moduleId", "key"}
    assert rotated["key"] != made["key"]
    assert commands.json("smart-module", "list", "--project", project)[0]["keys"] == 2
    commands.json("smart-module", "rotate-key", *of_module, "--overlap-hours", "0")
    assert commands.json("smart-module", "list", "--project", project)[0]["keys"] == 1
    assert commands.run("smart-module", "rotate-key", "--project", project, "--id", "none") == 1
    commands.json("smart-module", "suspend", *of_module)
    assert commands.json("smart-module", "list", "--project", project)[0]["suspended"] is True
    commands.json("smart-module", "resume", *of_module)
    assert commands.json("smart-module", "list", "--project", project)[0]["suspended"] is False
    commands.json("smart-module", "delete", *of_module)
    assert commands.json("smart-module", "list", "--project", project) == []
    assert commands.run("smart-module", "delete", *of_module) == 1
    assert "smart module" in commands.error


def test_dead_letters_are_shown_retried_and_dropped(commands: Commands, project: int) -> None:
    of_module = ("--project", project, "--id", "hook")
    commands.json("smart-module", "create", *of_module, "--url", URL, "--event", "*")
    assert commands.json("smart-module", "dead-letters", "list", *of_module) == []

    async def die(store: Store) -> None:
        """Three deliveries find no room."""
        module = await store.smart_modules.get(project, "hook")
        assert module is not None
        event = parse_event(b'{"eventType":"e","eventData":{"n":1}}')
        envelope = event_envelope(event, project, 7, 0, 0, None, None, 0, None)
        await store.module_deliveries.add(module, [(f"1.2-{n}", envelope) for n in range(3)], 0, 10)

    commands.on_store(die)
    dead_letters = commands.json("smart-module", "dead-letters", "list", *of_module)
    assert [dead_letter["eventId"] for dead_letter in dead_letters] == ["1.2-0", "1.2-1", "1.2-2"]
    assert dead_letters[0].keys() == {"letterId", "eventId", "reason", "tries", "event"}
    assert dead_letters[0]["event"]["eventData"] == {"n": 1}
    one = dead_letters[1]["letterId"]
    assert commands.json("smart-module", "dead-letters", "drop", *of_module, "--letter", one) == {
        "dropped": 1
    }
    assert commands.json("smart-module", "dead-letters", "retry", *of_module) == {"retried": 2}
    [listed] = commands.json("smart-module", "list", "--project", project)
    assert (listed["waiting"], listed["deadLetters"]) == (2, 0)
    assert commands.run("smart-module", "dead-letters", "list", "--project", project, "--id", "other") == 1


def test_foreign_entry_among_dead_letters_is_shown_and_dropped(commands: Commands, project: int) -> None:
    of_module = ("--project", project, "--id", "hook")
    commands.json("smart-module", "create", *of_module, "--url", URL, "--event", "*")

    async def write() -> None:
        async with reachable_redis(Settings(data_dir=commands.data_dir)) as url:
            client = connect(url)
            garbage: list[dict[Any, Any]] = [{"x": "y"}, {"r": b"\xff", "t": "x", "i": b"\xff", "e": "{"}]
            for fields in garbage:
                await client.xadd(ProjectSlot(project).module_dead("hook"), fields)
            await client.aclose()

    asyncio.run(write())
    dead_letters = commands.json("smart-module", "dead-letters", "list", *of_module)
    assert [(each["reason"], each["tries"], each["event"]) for each in dead_letters] == [
        ("malformed", 0, None), ("\ufffd", 0, None)
    ]  # fmt: skip
    assert commands.json("smart-module", "dead-letters", "retry", *of_module) == {"retried": 1}
    assert commands.json("smart-module", "dead-letters", "drop", *of_module) == {"dropped": 1}


@pytest.mark.parametrize("url", ["ftp://example.com/", "https://user:pass@example.com/", "nonsense"])
def test_url_that_cannot_be_called_is_named(commands: Commands, project: int, url: str) -> None:
    words = ("smart-module", "create", "--project", project, "--id", "m", "--event", "*", "--url", url)
    assert commands.run(*words) == 1
    assert "url" in commands.error


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8000/hook", "https://[::1]/", "http://localhost/", "http://10.1.2.3/", "http://0/"],
)
def test_undeliverable_url_is_refused_at_creation(
    commands: Commands, project: int, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("smart-module", "create", "--project", project, "--id", "m", "--event", "*", "--url", url)
    assert commands.run(*words) == 1
    assert "webhook_private_addresses" in commands.error
    assert commands.json("smart-module", "list", "--project", project) == []
    monkeypatch.setenv("HOMEWIRE_WEBHOOK_PRIVATE_ADDRESSES", "true")
    assert commands.json(*words)["moduleId"] == "m"


def test_key_is_no_plain_text_in_redis(commands: Commands, project: int) -> None:
    made = commands.json(
        *("smart-module", "create", "--project", project, "--id", "m", "--event", "*", "--url", URL)
    )

    async def record(store: Store) -> str:
        found = await store.smart_modules.get(project, "m")
        assert found is not None
        return json.dumps([found.sealed_url, found.sealed_key, repr(found)])

    stored = commands.on_store(record)
    assert made["key"] not in stored
    assert "hunter2" not in stored


def test_with_an_external_redis_a_module_needs_a_secret_that_is_shared(
    commands: Commands, project: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def url() -> str:
        async with reachable_redis(Settings(data_dir=commands.data_dir)) as found:
            return found

    monkeypatch.setenv("HOMEWIRE_REDIS_URL", asyncio.run(url()))
    elsewhere = Commands(tmp_path / "elsewhere", commands._capsys, monkeypatch)
    create = ("smart-module", "create", "--project", project, "--id", "hook", "--url", URL, "--event", "*")
    assert elsewhere.run(*create) == 1
    assert "HOMEWIRE_SECRET_KEY" in elsewhere.error
    assert not elsewhere.data_dir.exists()
    assert elsewhere.json("smart-module", "list", "--project", project) == []
    elsewhere.run("check", "--port", 0)
    assert "secret key" in elsewhere.out
    monkeypatch.setenv("HOMEWIRE_SECRET_KEY", "0123456789abcdef0123456789abcdef")
    assert elsewhere.json(*create)["moduleId"] == "hook"
    elsewhere.run("check", "--port", 0)
    assert "secret key" not in elsewhere.out
