"""The commands on permissions and groups, against the real embedded server."""

from __future__ import annotations

import pytest
from test_cli_program import Commands, alone, homewire

__all__ = ["alone", "homewire"]


@pytest.fixture
def project(homewire: Commands) -> int:
    words = ("--name", "p", "--accounts", "email", "--access-control", "permission")
    return int(homewire.json("project", "create", *words)["projectId"])


def test_operators_grant_and_revoke(homewire: Commands, project: int) -> None:
    p = ("--project", project)
    person = ("--email", "a@example.com", "--name", "a", "--password", "correct horse 9")
    user = homewire.json("user", "create", *p, *person)["userId"]
    home = homewire.json("home", "create", *p, "--name", "h", "--owner", user)["homeId"]
    group = homewire.json("group", "create", *p, "--name", "guests")["groupId"]
    homewire.json("group", "add", *p, "--group", group, "--user", user)
    both = ("--read", f"home-events:{home}", "--write", f"home:{home}")
    texts = [f"read:home-events:{home}", f"write:home:{home}"]
    answer = homewire.json("permission", "grant", *p, "--user", user, *both)
    assert answer == {"userId": user, "permissions": texts}
    answer = homewire.json("permission", "grant", *p, "--group", group, "--read", f"home-events:{home}")
    assert answer == {"groupId": group, "permissions": texts[:1]}
    assert homewire.json("permission", "list", *p, "--user", user) == [
        {"permission": texts[0], "granted": True, "groupIds": [group]},
        {"permission": texts[1], "granted": True, "groupIds": []},
    ]
    homewire.json("permission", "revoke", *p, "--user", user, *both)
    assert homewire.json("permission", "list", *p, "--group", group) == [{"permission": texts[0]}]
    assert homewire.json("group", "list", *p) == [{"groupId": group, "name": "guests"}]
    assert homewire.json("group", "list", *p, "--group", group) == [{"userId": user}]
    homewire.json("group", "remove", *p, "--group", group, "--user", user)
    assert homewire.json("permission", "list", *p, "--user", user) == []
    homewire.json("group", "delete", *p, "--group", group)
    assert homewire.json("group", "list", *p) == []


def test_slip_is_named_and_changes_nothing(homewire: Commands, project: int) -> None:
    p = ("--project", project)
    person = ("--email", "a@example.com", "--name", "a", "--password", "correct horse 9")
    user = homewire.json("user", "create", *p, *person)["userId"]
    entity, slip = ("--read", "entity-events:kitchen"), ("--read", "kitchen")
    assert homewire.run("permission", "grant", *p, "--user", user, *entity, *slip) == 1
    assert homewire.error.startswith("homewire: read: ")
    assert homewire.json("permission", "list", *p, "--user", user) == []
    assert homewire.run("permission", "grant", *p, "--user", 987654321, *entity) == 1
    assert "there is no user 987654321" in homewire.error
    assert homewire.run("permission", "grant", *p, "--user", user, "--read", "home-events:987654321") == 1
    assert "there is no home 987654321" in homewire.error
    assert homewire.run("permission", "grant", *p, "--user", user, "--write", "device:987654321") == 1
    assert "there is no device 987654321" in homewire.error
    assert homewire.run("permission", "revoke", *p, "--user", user, *entity) == 1
    assert "there is no permission read:entity-events:kitchen" in homewire.error
    assert homewire.run("group", "add", *p, "--group", 987654321, "--user", user) == 1
    assert "there is no group 987654321" in homewire.error
    for words in ((), ("--user", user), ("--user", user, "--group", 1, *entity), entity):
        assert homewire.run("permission", "grant", *p, *words) == 2


def test_grant_in_a_membership_project_says_that_it_has_no_effect(homewire: Commands) -> None:
    number = homewire.json("project", "create", "--name", "m", "--accounts", "email")["projectId"]
    p = ("--project", number)
    group = homewire.json("group", "create", *p, "--name", "guests")["groupId"]
    device = homewire.json("device", "create", *p, "--class", "lamp")["deviceId"]
    words = ("permission", "grant", *p, "--group", group, "--read", f"device:{device}")
    assert homewire.json(*words)["groupId"] == group
    assert "have no effect" in homewire.error


def test_grant_in_a_permission_project_warns_of_nothing(homewire: Commands, project: int) -> None:
    p = ("--project", project)
    group = homewire.json("group", "create", *p, "--name", "guests")["groupId"]
    device = homewire.json("device", "create", *p, "--class", "lamp")["deviceId"]
    homewire.json("permission", "grant", *p, "--group", group, "--read", f"device:{device}")
    assert homewire.error == ""
