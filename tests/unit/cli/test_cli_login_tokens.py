"""The command on login tokens, against the real embedded server."""

from __future__ import annotations

from test_cli_program import Commands, alone, homewire, project

from homewire.logins.store import parse_login_token
from homewire.repositories import Store

__all__ = ["alone", "homewire"]


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
