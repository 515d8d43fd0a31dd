"""A page of another origin in a real browser: what CORS and cookies are worth, only a browser says.

It needs `chromium` in the PATH (Debian: `apt-get install chromium`), and is skipped without.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kit.node import private_node
from kit.tenant import tenant_of

BROWSER: Final = shutil.which("chromium")
START_S: Final = 50.0
SCRIPT: Final = """
const told = {};
const said = async (name, path, options) => {
  try {
    const answer = await fetch(NODE + path, {credentials: "include", ...options});
    told[name] = answer.status;
    return answer;
  } catch (error) {
    told[name] = "kept from the page";
  }
};
const json = body => ({
  headers: {"Content-Type": "application/json", "baggage": "a=b"}, body: JSON.stringify(body)
});
(async () => {
  await said("login", "/session/login-with-token", {method: "POST", ...json({token: KEY})});
  const homes = await said("read", "/homes?userId=" + USER);
  told.range = !homes ? null : homes.headers.get("vnd.tinkermode.range");
  await said("change", "/homes/" + HOME, {method: "PATCH", ...json({name: "by a page"})});
  const keyed = {Authorization: KEY, traceparent: "00"};
  await said("with a key", "/homes/" + HOME, {credentials: "omit", headers: keyed});
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
})();
"""


class Site:
    """A server of another origin with one page, and what its script told."""

    def __init__(self) -> None:
        self.constants = ""
        self.told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @property
    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_post("/told", self._tell)
        return app

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(text=f"<script>{self.constants}{SCRIPT}</script>", content_type="text/html")

    async def _tell(self, request: web.Request) -> web.Response:
        if not self.told.done():
            self.told.set_result(await request.json())
        return web.Response()


@asynccontextmanager
async def browsing(url: str) -> AsyncIterator[None]:
    assert BROWSER is not None
    # Its helper processes, which end behind it, write there to the last.
    with tempfile.TemporaryDirectory(prefix="hw-", ignore_cleanup_errors=True) as profile:
        options = (
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
            *("--disable-background-networking", "--disable-component-update", "--disable-quic"),
            f"--user-data-dir={profile}",
        )
        nothing = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(BROWSER, *options, url, stdout=nothing, stderr=nothing)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium in the PATH")
@pytest.mark.parametrize("listed", [True, False])
async def test_page_of_a_listed_origin_acts_with_the_cookie(listed: bool) -> None:
    site = Site()
    async with TestServer(site.app) as server:
        url = str(server.make_url("/"))
        with private_node(cookie_origins=url if listed else "https://app.example.com") as node:
            async with tenant_of(node) as tenant:
                user = await tenant.user()
                home = await tenant.home(user)
                site.constants = (
                    f"const NODE = '{node.url}', KEY = '{user.key}', USER = {user.id}, HOME = {home};"
                )
                async with browsing(url), asyncio.timeout(START_S):
                    told = await site.told
                found = await tenant.store.homes.get(tenant.project, home)
    assert found is not None
    assert told.pop("with a key") == 200, "with whatever header"
    if listed:
        assert told == {"login": 201, "read": 200, "range": "0-0/1", "change": 204}
        assert found.name == "by a page"
    else:
        kept = "kept from the page"
        assert told == {"login": kept, "read": kept, "range": None, "change": kept}
        assert found.name == "home"
