"""`list` and `show` of records, against the real embedded server."""

from __future__ import annotations

import pytest
from test_cli_program import Commands, alone, homewire

from homewire.store import parts

__all__ = ["alone", "homewire"]


def test_records_are_listed_and_shown(homewire: Commands) -> None:
    demo = homewire.json("demo", "--homes", 2, "--users", 3, "--devices", 2)
    p = ("--project", demo["projectId"])
    users = [each["userId"] for each in demo["users"]]
    homes = [each["homeId"] for each in demo["homes"]]
    devices = [each["deviceId"] for each in demo["homes"][0]["devices"]]

    listed = homewire.json("user", "list", *p)
    assert [each["userId"] for each in listed] == sorted(users)
    assert listed[0].keys() == {
        *("userId", "name", "email", "phoneNumber", "externalKey", "verified", "createdAt")
    }
    assert [each["userId"] for each in homewire.json("user", "list", *p, "--search", "user 2")] == [users[1]]
    shown = homewire.json("user", "show", "--user", users[0])
    assert (shown["email"], shown["homeIds"]) == ("user1@example.com", sorted(homes))

    assert [each["homeId"] for each in homewire.json("home", "list", *p)] == sorted(homes)
    assert [each["homeId"] for each in homewire.json("home", "list", "--user", users[1])] == sorted(homes)
    shown = homewire.json("home", "show", "--home", homes[0])
    assert (shown["members"], shown["devices"], shown["deactivated"]) == (3, 2, False)

    listed = homewire.json("member", "list", "--home", homes[0])
    assert [each["userId"] for each in listed] == sorted(users)
    assert {each["role"] for each in listed} == {"owner", "member"}

    shown = homewire.json("device", "show", "--device", devices[0])
    assert (shown["homeId"], shown["deviceClass"]) == (homes[0], "sensor")
    assert shown["connected"] is False
    assert not {"key", "apiKey", "claimCode"} & shown.keys()
    for words in (("user", "show", "--user"), ("home", "show", "--home"), ("device", "show", "--device")):
        assert homewire.run(*words, 987654321) == 1
        assert "987654321" in homewire.error
    assert homewire.run("user", "list", *p) == 0
    assert homewire.out.splitlines()[0].split()[:2] == ["userId", "name"]
    assert len(homewire.out.splitlines()) == 4


def test_lists_take_skip_and_limit_and_come_in_pages(
    homewire: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "RECORDS_READ", 2)
    demo = homewire.json("demo", "--users", 5, "--devices", 5)
    home = demo["homes"][0]
    p = ("--project", demo["projectId"])
    users = [each["userId"] for each in demo["users"]]
    devices = [each["deviceId"] for each in home["devices"]]
    of_home = ("--home", home["homeId"])
    for words, name, ids in (
        (("user", "list", *p), "userId", users),
        (("member", "list", *of_home), "userId", users),
        (("device", "list", *of_home), "deviceId", devices),
        (("device", "list", *p), "deviceId", devices),
    ):
        ids = sorted(ids)
        assert [each[name] for each in homewire.json(*words)] == ids
        assert [each[name] for each in homewire.json(*words, "--skip", 1, "--limit", 3)] == ids[1:4]
        assert homewire.json(*words, "--skip", 5) == []
        assert homewire.run(*words) == 0
        # One head, whatever pages it was read in.
        assert [line.split()[0] for line in homewire.out.splitlines()] == [name, *map(str, ids)]
        assert homewire.run(*words, "--skip", 9) == 0
        assert homewire.out == "none\n"


def test_apps_are_listed_and_deleted(homewire: Commands) -> None:
    project = homewire.json("project", "create", "--name", "N", "--accounts", "email")["projectId"]
    p = ("--project", project)
    for app in ("b", "a"):
        homewire.json("app", "create", *p, "--id", app)
    assert [each["appId"] for each in homewire.json("app", "list", *p)] == ["a", "b"]
    assert homewire.json("app", "delete", *p, "--id", "a") == {"appId": "a"}
    assert homewire.run("app", "delete", *p, "--id", "a") == 1
    assert homewire.error == "homewire: app: there is no app a\n"
    assert [each["appId"] for each in homewire.json("app", "list", *p)] == ["b"]
    assert not homewire.on_store(lambda store: store.apps.exists(project, "a"))
    assert homewire.json("project", "show", *p)["storedRecords"] == 1
