"""Smart modules of a home: what everybody may know of them, and what cannot be made."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import orjson
import pytest

from kit.node import NodeProcess
from kit.tenant import Account, Conflict, InvalidInput, Tenant, UnknownRecord, tenant_of
from kit.webhook_receiver import add_module, register

URL = "https://hooks.example.com/token-hunter2"


async def get(tenant: Tenant, path: str, key: str | None) -> tuple[int, Any, str]:
    """Status, body and range header."""
    headers = {} if key is None else {"Authorization": f"ModeCloud {key}"}
    async with tenant.http.get(path, headers=headers) as answer:
        body = await answer.read()
        return (
            answer.status,
            orjson.loads(body) if body else None,
            answer.headers.get("vnd.tinkermode.range", ""),
        )


async def home_of(tenant: Tenant) -> tuple[Account, int]:
    user = await tenant.user()
    return user, await tenant.home(user)


async def test_only_public_information_is_shown(tenant: Tenant, node: NodeProcess) -> None:
    user, home = await home_of(tenant)
    key = await register(tenant, node, URL, "b", "a")
    status, module, _ = await get(tenant, f"/homes/{home}/smartModules/hook", user.key)
    assert status == 200
    created = module.pop("creationTime")
    assert created.endswith("Z")
    assert abs(datetime.fromisoformat(created).timestamp() - datetime.now().timestamp()) < 60
    assert module == {
        "id": "hook",
        "projectId": tenant.project,
        "moduleType": "webhook",
        "description": "a test",
        "suspended": False,
        "subscribedEvents": ["a", "b"],
    }
    _, listed, _ = await get(tenant, f"/homes/{home}/smartModules", user.key)
    assert listed == [module | {"creationTime": created}]
    assert "hunter2" not in str(listed)
    assert key not in str(listed)


async def test_module_is_suspended_by_operator(tenant: Tenant, node: NodeProcess) -> None:
    user, home = await home_of(tenant)
    await register(tenant, node, URL)
    for switch, expected in (
        (tenant.store.smart_modules.suspend, True),
        (tenant.store.smart_modules.resume, False),
    ):
        await switch(tenant.project, "hook")
        _, module, _ = await get(tenant, f"/homes/{home}/smartModules/hook", user.key)
        assert module["suspended"] is expected


async def test_home_has_those_of_the_project_and_its_own(tenant: Tenant, node: NodeProcess) -> None:
    user, home = await home_of(tenant)
    other = await tenant.home(user)
    await register(tenant, node, URL, module="everywhere")
    await register(tenant, node, URL, module="here", homes=[home])
    await register(tenant, node, URL, module="there", homes=[other])
    for asked, expected in ((home, ["everywhere", "here"]), (other, ["everywhere", "there"])):
        status, listed, span = await get(tenant, f"/homes/{asked}/smartModules", user.key)
        assert (status, [module["id"] for module in listed], span) == (200, expected, "0-1/2")
    assert (await get(tenant, f"/homes/{home}/smartModules/there", user.key))[0] == 404
    assert (await get(tenant, f"/homes/{home}/smartModules/here", user.key))[0] == 200


async def test_lists_are_paged_by_id(tenant: Tenant, node: NodeProcess) -> None:
    user, home = await home_of(tenant)
    empty = await get(tenant, f"/homes/{home}/smartModules", user.key)
    assert empty == (200, [], "*/0")
    for name in ("c", "B", "a", "b"):
        await register(tenant, node, URL, module=name)
    for query, expected, span in (
        ("", ["B", "a", "b", "c"], "0-3/4"),
        ("?skip=1&limit=2", ["a", "b"], "1-2/4"),
        ("?skip=3", ["c"], "3-3/4"),
        ("?limit=0", [], "*/4"),
        ("?skip=9", [], "*/4"),
    ):
        status, listed, found = await get(tenant, f"/homes/{home}/smartModules{query}", user.key)
        assert (status, [module["id"] for module in listed], found) == (200, expected, span), query
    assert (await get(tenant, f"/homes/{home}/smartModules?skip=-1", user.key))[0] == 403


async def test_callers_see_modules_by_access(tenant: Tenant, node: NodeProcess) -> None:
    user, home = await home_of(tenant)
    stranger, _ = await home_of(tenant)
    device = await tenant.device(home)
    await register(tenant, node, URL)
    reader = await tenant.project_key("read")
    async with tenant_of(node) as foreign:
        other_user, _ = await home_of(foreign)
        for path, unseen in (
            (f"/homes/{home}/smartModules", 403),
            (f"/homes/{home}/smartModules/hook", 404),
        ):
            for key, expected in (
                (user.key, 200),
                (reader, 200),
                (None, 401),
                ("v1.1.nonsense", 401),
                (device.key, 403),
                (tenant.key, 403),
                (stranger.key, unseen),
                (other_user.key, unseen),
            ):
                assert (await get(tenant, path, key))[0] == expected, (path, key)


@pytest.mark.parametrize("module", ["unknown", "a:b", "%2e%2e", "a%2Fb", "x" * 100, "%C3%A9", "hook%00"])
async def test_unknown_module_is_404(tenant: Tenant, node: NodeProcess, module: str) -> None:
    user, home = await home_of(tenant)
    await register(tenant, node, URL)
    assert (await get(tenant, f"/homes/{home}/smartModules/{module}", user.key))[0] == 404


async def test_invalid_module_is_refused_by_field(tenant: Tenant, node: NodeProcess) -> None:
    _, home = await home_of(tenant)
    await register(tenant, node, URL)
    with pytest.raises(Conflict, match="with this id"):
        await register(tenant, node, URL)
    with pytest.raises(UnknownRecord):
        await register(tenant, node, URL, module="m", homes=[home, 999_999_999])
    async with tenant_of(node) as other:
        with pytest.raises(UnknownRecord):
            await register(other, node, URL, module="m", homes=[home])
    for module in ("", ":", "a:b", "a b", "é", "x" * 65, ".a"):
        with pytest.raises(InvalidInput):
            await register(tenant, node, URL, module=module)
    with pytest.raises(InvalidInput):
        await register(tenant, node, URL, "", module="m")
    assert [module.id for module in await tenant.store.smart_modules.list(tenant.project)] == ["hook"]


async def test_two_of_one_id_at_once_become_one(tenant: Tenant, node: NodeProcess) -> None:
    made = await asyncio.gather(*(register(tenant, node, URL) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(each, str) for each in made) == 1
    assert sum(isinstance(each, Conflict) for each in made) == 4


async def test_project_has_a_hundred_at_most(tenant: Tenant) -> None:
    for number in range(100):
        await add_module(tenant, f"m{number}")
    with pytest.raises(Conflict, match="too many smart modules"):
        await add_module(tenant, "m100")
    await tenant.store.smart_modules.delete(tenant.project, "m7")
    await add_module(tenant, "m100")
