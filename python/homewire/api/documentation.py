"""GET /openapi.json and /docs: made from the table, once, when somebody asks for the first time.

Not when the node starts: it is a tenth of all the work of a start, for what few nodes are asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from typing import Final

import msgspec
from aiohttp import web

from homewire.api.docs_page import CONTENT_SECURITY_POLICY, page
from homewire.api.openapi import Part, document
from homewire.api.operation import Endpoint

_EVERYWHERE: Final = {"X-Content-Type-Options": "nosniff"}
_PAGE: Final = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"}


def routes(endpoints: Sequence[Endpoint]) -> list[web.RouteDef]:
    """What to mount at the URL root. `endpoints` are those of the document, not only those of this node."""

    @cache
    def made() -> Part:
        """What both say."""
        return document(endpoints)

    def text() -> bytes:
        return msgspec.json.format(msgspec.json.encode(made()), indent=2)

    def read_by_people() -> bytes:
        return page(made())

    return [
        web.get("/openapi.json", _constant(text, "application/json", {})),
        web.get("/docs", _constant(read_by_people, "text/html", _PAGE)),
    ]


def _constant(
    make: Callable[[], bytes], content_type: str, headers: Mapping[str, str]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    charset = "utf-8" if content_type == "text/html" else None
    given = {**_EVERYWHERE, **headers}
    made: bytes | None = None

    async def answer(_request: web.Request) -> web.Response:
        nonlocal made
        if made is None:
            # It takes a tenth of a second, in which others want to be served.
            made = await asyncio.to_thread(make)
        return web.Response(body=made, content_type=content_type, charset=charset, headers=given)

    return answer
