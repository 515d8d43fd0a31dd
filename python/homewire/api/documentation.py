"""GET /openapi.json and /docs: made once, from the table, when the node starts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec
from aiohttp import web

from homewire.api.docs_page import CONTENT_SECURITY_POLICY, page
from homewire.api.openapi import document
from homewire.api.operation import Endpoint

_EVERYWHERE: Final = {"X-Content-Type-Options": "nosniff"}
_PAGE: Final = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"}


def routes(endpoints: Sequence[Endpoint]) -> list[web.RouteDef]:
    """What to mount at the URL root. `endpoints` are those of the document, not only those of this node."""
    made = document(endpoints)
    text = msgspec.json.format(msgspec.json.encode(made), indent=2)
    return [
        web.get("/openapi.json", _constant(text, "application/json", {})),
        web.get("/docs", _constant(page(made), "text/html", _PAGE)),
    ]


def _constant(
    body: bytes, content_type: str, headers: Mapping[str, str]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    charset = "utf-8" if content_type == "text/html" else None
    given = {**_EVERYWHERE, **headers}

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type, charset=charset, headers=given)

    return answer
