"""Requests and handshakes per second: who sends too many is told so, and others are served."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kit.client import Answer, RawConnection, Refused, Socket
from kit.node import NodeProcess, private_node
from kit.tenant import tenant_of

HOSTILE, HONEST = "127.0.0.3", "127.0.0.2"
EVENTS = "/userSession/websocket"
MOST = 5_000
"""Far more than what may come at once, in less time than such a bucket takes to fill."""


async def answer(node: NodeProcess, path: str, key: str, source: str) -> Answer:
    async with await RawConnection.open(node.url, source=source) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: {key}\r\n\r\n"
        connection.writer.write(request.encode())
        return await connection.read_answer()


async def first_refusal(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """The first answer that is a 429."""
    for _ in range(MOST):
        if (said := await ask()).status == 429:
            return said
    raise AssertionError("nothing was refused")


def names(refusal: Answer, limit: str) -> bool:
    assert int(refusal.headers["retry-after"]) >= 1
    return bool(refusal.json() == {"reason": "TOO_MANY_REQUESTS", "data": {"limit": limit, "most": 1}})


async def test_address_without_a_key_is_refused_and_others_are_not() -> None:
    with private_node(address_requests_per_s=1) as node:
        refusal = await first_refusal(lambda: answer(node, "/homes", "dead", HOSTILE))
        assert names(refusal, "address_requests_per_s")
        assert (await answer(node, "/homes", "dead", HONEST)).status == 401
        # A balancer's probes have the address of many clients.
        for path in ("/healthz", "/readyz"):
            for _ in range(2):
                assert (await answer(node, path, "", HOSTILE)).status == 200
        assert (await node.metrics())['refused_total{limit="address_requests_per_s"}'] >= 1


async def test_principal_is_refused_wherever_it_comes_from() -> None:
    with private_node(principal_requests_per_s=1) as node:
        async with tenant_of(node) as tenant:
            loud, quiet = await tenant.user(), await tenant.user()
            refusal = await first_refusal(lambda: answer(node, f"/users/{loud.id}", loud.key, HOSTILE))
            assert names(refusal, "principal_requests_per_s")
            assert (await answer(node, f"/users/{quiet.id}", quiet.key, HOSTILE)).status == 200
            home = await tenant.home(quiet)
            # Events have limits of their own.
            await tenant.send(*({"homeId": home, "eventType": "e"} for _ in range(3)))


@pytest.mark.parametrize("whose", ["address", "principal"])
async def test_handshakes_are_refused_too(whose: str) -> None:
    limit = f"{whose}_handshakes_per_s"
    with private_node(user_connections=0, **{limit: 1}) as node:
        async with tenant_of(node) as tenant:
            loud, quiet = await tenant.user(), await tenant.user()

            async def handshake(key: str, source: str) -> Answer:
                async with await Socket.open(node.url, source=source) as connection:
                    try:
                        await connection.upgrade(EVENTS, key)
                    except Refused as refused:
                        return refused.answer
                return Answer(101, {}, b"")

            refusal = await first_refusal(lambda: handshake(loud.key, HOSTILE))
            assert names(refusal, limit)
            assert (await handshake(quiet.key, HONEST)).status == 101
            assert (await node.metrics())[f'refused_total{{limit="{limit}"}}'] >= 1


async def test_requests_of_one_user_wait_for_each_other_and_all_are_answered() -> None:
    with private_node(requests_at_once=1) as node:
        async with tenant_of(node) as tenant:
            user = await tenant.user()
            # Whether two of them meet is the machine's affair; of so many some do.
            while not (await node.metrics())["requests_delayed_total"]:
                asked = [answer(node, f"/users/{user.id}", user.key, HONEST) for _ in range(50)]
                assert {each.status for each in await asyncio.gather(*asked)} == {200}
            metrics = await node.metrics()
            assert metrics["requests_waiting"] == metrics["requests_refused_total"] == 0
