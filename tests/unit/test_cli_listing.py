"""`list` and `show` of records, and the deletion that asks."""

from __future__ import annotations

import io

import pytest
from test_cli import Commands, alone, homewire, project

__all__ = ["alone", "homewire"]


def test_records_whose_ids_were_lost_are_listed(homewire: Commands) -> None:
    of = ("--project", project(homewire))
    ada, bob = (
        homewire.json(
            *("user", "create", *of, "--name", name, "--email", f"{name}@example.com", "--verified")
        )
        for name in ("ada", "bob")
    )
    home = homewire.json("home", "create", *of, "--name", "Villa", "--owner", ada["userId"])["homeId"]
    homewire.json("member", "add", "--home", home, "--user", bob["userId"])
    device = homewire.json("device", "create", *of, "--class", "lamp", "--home", home)["deviceId"]
    homewire.json("app", "create", *of, "--id", "web")

    listed = homewire.json("user", "list", *of)
    assert [(each["userId"], each["email"]) for each in listed] == [
        (ada["userId"], "ada@example.com"),
        (bob["userId"], "bob@example.com"),
    ]
    assert [each["name"] for each in homewire.json("user", "list", *of, "--search", "BOB")] == ["bob"]
    assert [each["name"] for each in homewire.json("user", "list", *of, "--skip", 1, "--limit", 1)] == ["bob"]
    assert homewire.json("user", "show", "--user", bob["userId"])["homes"] == [home]
    assert homewire.json("home", "list", *of) == [
        {"homeId": home, "name": "Villa", "timezone": None, "deactivated": False}
    ]
    assert [each["homeId"] for each in homewire.json("home", "list", *of, "--user", bob["userId"])] == [home]
    shown = homewire.json("home", "show", "--home", home)
    assert (shown["members"], shown["devices"]) == (2, 1)
    assert homewire.json("member", "list", "--home", home) == [
        {"userId": ada["userId"], "role": "owner"},
        {"userId": bob["userId"], "role": "member"},
    ]
    shown = homewire.json("device", "show", "--device", device)
    assert (shown["homeId"], shown["deviceClass"], shown["connected"]) == (home, "lamp", False)
    assert homewire.json("app", "list", *of) == [{"appId": "web"}]
    assert homewire.json("app", "delete", *of, "--id", "web") == {"appId": "web"}
    assert homewire.json("app", "list", *of) == []
    assert homewire.run("app", "delete", *of, "--id", "web") == 1
    assert "there is no app web" in homewire.error


def test_what_is_not_there_is_said_by_its_id(homewire: Commands) -> None:
    for noun in ("user", "home", "device"):
        assert homewire.run(noun, "show", f"--{noun}", 987654321) == 1
        assert f"there is no {noun} 987654321" in homewire.error


def test_a_deleted_app_is_no_part_of_what_the_project_stores(homewire: Commands) -> None:
    of = ("--project", project(homewire))
    homewire.json("app", "create", *of, "--id", "web")
    homewire.json("app", "delete", *of, "--id", "web")
    assert homewire.json("project", "show", *of)["storedRecords"] == 0


def test_a_project_is_not_deleted_by_its_default_and_not_without_consent(
    homewire: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = project(homewire)
    monkeypatch.setenv("HOMEWIRE_DEFAULT_PROJECT", str(number))
    assert homewire.run("project", "delete", "--yes") == 2
    assert "--project" in homewire.error
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert homewire.run("project", "delete", "--project", number) == 1
    assert "--yes" in homewire.error
    assert [each["projectId"] for each in homewire.json("project", "list")] == [number]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("y\n", 0)])
def test_on_a_terminal_the_deletion_asks(
    homewire: Commands, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    number = project(homewire)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    homewire.run("project", "delete", "--project", number)
    assert len(homewire.json("project", "list")) == left
