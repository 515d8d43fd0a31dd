"""Clients that marshal whole structs: what they have nothing to say about has the zero value of its type."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from kit.homes import HomeWithMembers, home_with_members
from kit.node import NodeProcess
from kit.tenant import Reply, Tenant, tenant_of

NEVER = "0001-01-01T00:00:00Z"
ZERO_USER = {
    "id": 0, "projectId": 0, "creationTime": NEVER, "phoneNumber": "", "email": "", "externalKey": "",
    "password": "", "currentPassword": "",
}  # fmt: skip
ZERO_HOME = {"id": 0, "projectId": 0, "creationTime": NEVER}
ZERO_DEVICE = {
    "id": 0, "projectId": 0, "creationTime": NEVER, "deviceClass": "", "homeId": 0, "claimTime": NEVER,
    "claimExpirationTime": NEVER, "lastConnectTime": NEVER, "claimCode": "", "apiKey": "",
    "isConnected": False,
}  # fmt: skip


@pytest_asyncio.fixture
async def home(tenant: Tenant) -> HomeWithMembers:
    return await home_with_members(tenant)


async def test_patch_changes_named_members_only(home: HomeWithMembers) -> None:
    device = await home.tenant.device(home.home)
    for path, key, zero in (
        (f"/users/{home.owner.id}", home.owner.key, ZERO_USER),
        (home.path, home.owner.key, ZERO_HOME),
        (f"/devices/{device.id}", home.owner.key, ZERO_DEVICE),
    ):
        before = (await home.ask("GET", path, key)).body
        answer = await home.ask("PATCH", path, key, {**zero, "name": "said"})
        assert (answer.status, answer.body) == (204, None)
        assert (await home.ask("GET", path, key)).body == {**before, "name": "said"}
        for empty in ("", NEVER):
            whole = {**zero, **before, "creationTime": empty, "name": "again"}
            assert (await home.ask("PATCH", path, key, whole)).status == 204
        # What is said and cannot be is refused still.
        said = {**zero, "name": "no", "creationTime": "2001-01-01T00:00:00Z"}
        refused = await home.ask("PATCH", path, key, said)
        assert (refused.status, refused.body["data"]["field"]) == (403, "creationTime")
        assert (await home.ask("GET", path, key)).body["name"] == "again"


async def test_false_is_a_value(home: HomeWithMembers) -> None:
    """A user who says that the home is active must not believe that it is now."""
    assert (await home.ask("PATCH", home.path, home.admin, {"deactivated": True})).status == 204
    refused = await home.ask("PATCH", home.path, home.owner.key, {"name": "x", "deactivated": False})
    assert (refused.status, refused.body["data"]["field"]) == (403, "deactivated")


@pytest.mark.parametrize("as_form", [False, True])
async def test_zero_id_of_a_new_object_is_absent(home: HomeWithMembers, as_form: bool) -> None:
    tenant = home.tenant
    body: dict[str, Any] = {"userId": 0, "phoneNumber": "", "email": "new@example.com", "role": ""}

    async def post(path: str, key: str | None, fields: dict[str, Any]) -> Reply:
        if as_form:
            return await tenant.ask("POST", path, key, data=fields)
        return await tenant.ask("POST", path, key, fields)

    answer = await post(home.members, home.owner.key, body)
    assert (answer.status, answer.body["role"]) == (201, "member")
    person = await tenant.store.users.get(tenant.project, home.owner.id)
    assert person is not None
    credentials = {
        "projectId": tenant.project, "appId": "none", "email": person.email, "password": "wrong",
        "userId": 0, "phoneNumber": "", "code": "",
    }  # fmt: skip
    answer = await post("/auth/user", None, credentials)
    # Refused for its app or password, and not for a user id that nobody gave.
    assert answer.body.get("data", {}).get("field") != "userId"


async def test_zero_id_does_not_count_as_an_id(node: NodeProcess) -> None:
    """Where one is needed it is missing."""
    async with tenant_of(node, "byou") as tenant:
        body = {"projectId": tenant.project, "userId": 0}
        key = await tenant.project_key("byou")
        answer = await tenant.ask("POST", "/auth/user", key, body)
        assert (answer.status, answer.body["data"]) == (403, {"field": "userId", "problem": "is required"})
