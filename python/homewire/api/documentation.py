"""GET /, /openapi.json and /docs: made from the table, once, when somebody asks for the first time.

Not when the node starts: it is a tenth of all the work of a start, for what few nodes are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import msgspec
from aiohttp import web

from homewire.api.docs_page import CONTENT_SECURITY_POLICY, page
from homewire.api.openapi import Part, document
from homewire.api.operation import Endpoint
from homewire.http.documents import Document

_PAGE: Final = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"}
_ROOT: Final = {"name": "homewire", "docs": "/docs", "openapi": "/openapi.json", "health": "/healthz"}
"""What a node is, for who finds one. No version: that would tell what it can be attacked by."""


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

    def root() -> bytes:
        return msgspec.json.encode(_ROOT)

    return [
        web.get("/", Document(root, "application/json").serve),
        web.get("/openapi.json", Document(text, "application/json").serve),
        web.get("/docs", Document(read_by_people, "text/html", _PAGE).serve),
    ]
