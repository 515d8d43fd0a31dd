"""A browser at the Sessions Controller (spec 002): it keeps a cookie, and its host names a project."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookies import Morsel, SimpleCookie
from typing import Any, Final

import aiohttp
import orjson

from homewire.server.browser import HOST_SESSION_COOKIE, SESSION_COOKIE
from kit.accounts import TenantWithApp
from kit.node import NodeProcess
from kit.tenant import Reply

HOSTS: Final = ",".join(f"p{number}.test={number}" for number in range(1, 2000))
"""The setting `project_hosts` of a node whose projects have a host each, `p<id>.test`."""
JSON: Final = {"Content-Type": "application/json", "Accept": "application/json"}
"""What the examples of the document send."""


@dataclass
class Browser:
    """One that looks at `p<project>.test`. It has no cookie at first."""

    http: aiohttp.ClientSession
    project: int
    cookie: str = ""

    @property
    def host(self) -> str:
        return f"p{self.project}.test"

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """`body` as it is, or as JSON; cookies as a browser has them, before and after."""
        sent = {**JSON, "Host": self.host, **{name.replace("_", "-"): text for name, text in headers.items()}}
        if self.cookie:
            sent["Cookie"] = f"{SESSION_COOKIE}={self.cookie}"
        data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        async with self.http.request(method, path, headers=sent, data=data) as answer:
            content = await answer.read()
            reply = Reply(answer.status, orjson.loads(content) if content else None, answer.headers)
        given = cookie_of(reply)
        if given is not None:
            self.cookie = given.value
        return reply


def cookie_of(reply: Reply) -> Morsel[str] | None:
    """The session's cookie, as the answer sets it."""
    jar: SimpleCookie = SimpleCookie(reply.headers.get("Set-Cookie", ""))
    return jar.get(SESSION_COOKIE) or jar.get(HOST_SESSION_COOKIE)


@asynccontextmanager
async def browser_of(people: TenantWithApp, project: int | None = None) -> AsyncIterator[Browser]:
    """A browser in front of the node of `people`, at the host of its project unless it is to be another."""
    async with client_of(people.node) as http:
        yield Browser(http, people.project if project is None else project)


def client_of(node: NodeProcess) -> aiohttp.ClientSession:
    """A client that keeps no cookies itself."""
    return aiohttp.ClientSession(node.url, cookie_jar=aiohttp.DummyCookieJar())


def refused(reply: Reply, status: int, reason: str | None = None) -> dict[str, Any]:
    """What the refusal says, in the shape of these resources."""
    assert reply.status == status, reply
    assert reply.body.keys() == {"reason", "data"}
    assert reason in (None, reply.body["reason"])
    found: dict[str, Any] = reply.body["data"]
    return found
