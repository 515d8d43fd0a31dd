"""The commands on sessions and login tokens, against the real embedded server."""

from __future__ import annotations

import pytest
from test_cli_program import Commands, alone, homewire, project

from homewire.logins.store import parse_login_token
from homewire.repositories import Store
from homewire.sessions.models import ClientInfo, Session

__all__ = ["alone", "homewire"]


def test_operator_lists_and_ends_sessions(homewire: Commands) -> None:
    p = project(homewire)
    of_p = ("--project", p)
    users = [
        homewire.json("user", "create", *of_p, "--name", name, "--email", f"{name}@example.com",
                      "--password", "correct horse 9")
        for name in ("ada", "bob")
    ]  # fmt: skip
    device = homewire.json("device", "create", *of_p, "--class", "lamp")["deviceId"]

    async def signed_in(store: Store) -> list[Session]:
        login = ClientInfo("192.0.2.7", "home.example", "agent/1", "node")
        return [
            (await store.sessions.open(p, users[0]["userId"], "app", login))[0],
            (await store.sessions.open_node(p, device, ClientInfo()))[0],
        ]

    session, of_device = homewire.on_store(signed_in)
    listed = homewire.json("sessions", "list", *of_p)
    # The two may have begun in one millisecond: the ids decide then.
    by_start = sorted((session, of_device), key=lambda each: (each.started_ms, each.id))
    assert [each["sessionId"] for each in listed][2:] == [each.id for each in by_start]
    seen, seen_of_device = (listed[2 + by_start.index(each)] for each in (session, of_device))
    assert seen.keys() == {
        *("sessionId", "userId", "appId", "startedAt", "lastAccessAt", "expiresAt", "address", "userAgent")
    }
    assert (seen["address"], seen["userAgent"]) == ("192.0.2.7", "agent/1")
    assert seen_of_device["deviceId"] == device
    [hers, also_hers] = homewire.json("sessions", "list", *of_p, "--user", users[0]["userId"])
    assert (hers["userId"], also_hers["sessionId"]) == (users[0]["userId"], session.id)

    of_session = (*of_p, "--id", session.id)
    shown = homewire.json("sessions", "show", *of_session)
    assert (shown["host"], shown["nodeId"], shown["closedAt"]) == ("home.example", "node", None)
    assert homewire.json("sessions", "end", *of_session) == {"sessionId": session.id}
    assert homewire.json("sessions", "show", *of_session)["closedAt"].endswith("Z")
    assert homewire.run("sessions", "end", *of_session) == 1
    assert homewire.error == f"homewire: session: there is no session {session.id}\n"
    assert homewire.run("sessions", "list", *of_p, "--user", 987654321) == 1
    assert homewire.run("sessions", "show", *of_p, "--id", "nonsense") == 1
    assert len(homewire.json("sessions", "list", *of_p)) == 3


def test_operator_ends_all_sessions_of_a_user(homewire: Commands) -> None:
    of_p = ("--project", p := project(homewire))
    user = homewire.json("user", "create", *of_p, "--name", "ada", "--email", "ada@example.com",
                         "--password", "correct horse 9")["userId"]  # fmt: skip

    async def signed_in(store: Store) -> None:
        session, _ = await store.sessions.open(p, user, "app", ClientInfo())
        await store.sessions.open(p, user, "app", ClientInfo(), parent=session)

    homewire.on_store(signed_in)
    assert len(homewire.json("sessions", "list", *of_p, "--user", user)) == 3
    for wrong in ((), ("--all",), ("--user", user), ("--all", "--user", user, "--id", "a" * 24)):
        assert homewire.run("sessions", "end", *of_p, *wrong) == 1
        assert "give either --id, or --user with --all" in homewire.error
    assert homewire.run("sessions", "end", *of_p, "--all", "--user", 987654321) == 1
    assert homewire.json("sessions", "end", *of_p, "--all", "--user", user) == {"userId": user}
    assert homewire.json("sessions", "list", *of_p, "--user", user) == []


def test_table_has_whole_ids_and_nothing_that_steers_the_terminal(
    homewire: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id is what `sessions end` wants, and the User-Agent is whatever a client likes to send."""
    monkeypatch.setenv("COLUMNS", "60")
    p = project(homewire)
    user = homewire.json("user", "create", "--project", p, "--name", "eva", "--email", "eva@example.com",
                         "--password", "correct horse 9")["userId"]  # fmt: skip

    async def signed_in(store: Store) -> Session:
        hostile = ClientInfo("192.0.2.7", "home.example", "agent\x9b2K\u202e\r\nof nobody")
        return (await store.sessions.open(p, user, "app", hostile))[0]

    session = homewire.on_store(signed_in)
    assert homewire.run("sessions", "list", "--project", p) == 0
    heads, _, line = homewire.out.splitlines()
    assert line.split()[0] == session.id
    assert line.endswith(r"192.0.2.7  agent\x9b2K\u202e\r\nof nobody")
    assert heads.index("address") == line.index("192.0.2.7")
    assert homewire.run("sessions", "show", "--project", p, "--id", session.id) == 0
    assert homewire.out.replace("\n", "").isprintable()


def test_token_is_made_and_good(homewire: Commands) -> None:
    user = ("--email", "a@example.com", "--name", "a", "--password", "correct horse 9")
    p = project(homewire)
    user_id = homewire.json("user", "create", "--project", p, *user)["userId"]
    made = homewire.json("login-token", "create", "--user", user_id)
    assert list(made) == ["token"]

    async def redeemed(store: Store) -> bool:
        says = parse_login_token(made["token"])
        assert says is not None
        return (says.project_id, says.user_id) == (p, user_id) and await store.login_tokens.redeem(says)

    assert homewire.on_store(redeemed)
    assert homewire.run("login-token", "create", "--user", 987654321) == 1
    assert homewire.run("login-token", "create", "--user", user_id, "--project", 987654321) == 1
