"""Who may call, and how a part of a list is described."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

import pytest
from aiohttp.test_utils import make_mocked_request

from homewire.auth.models import Principal, PrincipalKind
from homewire.operations import OPERATIONS
from homewire.projects.models import KeyScope
from homewire.rest.dispatch import in_turns, range_header
from homewire.rest.operation import Access, Operation
from homewire.server.limits import RequestTurns
from homewire.store.parts import Part


@pytest.mark.parametrize(
    ("items", "start", "total", "value"),
    [
        ([], 0, 0, "*/0"),
        ([], 500, 210, "*/210"),
        ([1], 0, 1, "0-0/1"),
        (list(range(10)), 0, 210, "0-9/210"),
        (list(range(10)), 200, 210, "200-209/210"),
    ],
)
def test_part_of_a_list_says_where_it_stands(items: list[int], start: int, total: int, value: str) -> None:
    assert range_header(Part(items, start, len(items), total)) == value


def principal(kind: PrincipalKind, *permissions: KeyScope) -> Principal:
    return Principal(kind, 1, 1, 1, scopes=frozenset(permissions))


@pytest.mark.parametrize("permission", KeyScope)
def test_project_key_needs_the_permission_or_admin(permission: KeyScope) -> None:
    access = Access(scope=permission)
    allowed = {each for each in KeyScope if access.accept(principal(PrincipalKind.PROJECT_KEY, each))}
    assert allowed == {permission, KeyScope.ADMIN}
    assert not access.accept(principal(PrincipalKind.PROJECT_KEY))


def test_kind_of_key_that_is_not_named_is_not_taken() -> None:
    every = tuple(KeyScope)
    for access, kinds in (
        (Access(), set()),
        (Access(user=True), {PrincipalKind.USER}),
        (Access(device=True), {PrincipalKind.DEVICE}),
        (Access(scope=KeyScope.READ), {PrincipalKind.PROJECT_KEY}),
        # What is open to nobody's key is not thereby open to everybody's.
        (Access(anonymous=True), set()),
    ):
        assert {kind for kind in PrincipalKind if access.accept(principal(kind, *every))} == kinds


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each.located], ids=lambda it: it.name)
def test_created_resource_lies_below_its_path(operation: Operation) -> None:
    assert operation.success == 201
    assert operation.located in operation.answer.__struct_fields__
    below = operation.path + "/{"
    found = [each for each in OPERATIONS if each.method == "GET" and each.path.startswith(below)]
    assert any("/" not in each.path.removeprefix(below) for each in found)


def test_created_resources_below_their_path_are_declared() -> None:
    paths = {
        each.path.rpartition("/")[0]
        for each in OPERATIONS
        if each.method == "GET" and each.path.endswith("}")
    }
    assert all(each.located for each in OPERATIONS if each.success == 201 and each.path in paths)


async def test_steps_of_two_long_answers_of_a_project_take_turns() -> None:
    turns = RequestTurns(8)
    callers = {"a": principal(PrincipalKind.PROJECT_KEY), "b": principal(PrincipalKind.USER)}
    order: list[str] = []

    async def steps(name: str) -> AsyncGenerator[bytes]:
        for number in range(3):
            order.append(f"{name}{number} begins")
            await asyncio.sleep(0)
            order.append(f"{name}{number} ends")
            yield b""
        yield name.encode()

    async def whole(name: str) -> bytes:
        turn = partial(turns.of_step, callers[name], make_mocked_request("GET", "/"))
        return b"".join([chunk async for chunk in in_turns(steps(name), turn)])

    assert tuple(await asyncio.gather(whole("a"), whole("b"))) == (b"a", b"b")
    assert order == [
        f"{name}{number} {moment}" for number in range(3) for name in "ab" for moment in ("begins", "ends")
    ]
