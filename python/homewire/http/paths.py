"""Ids in paths."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from homewire.errors import NotFound

LARGEST_ID: Final = 2**63 - 1


def path_id(request: web.Request, name: str) -> int:
    """The id in the path. Raises NotFound for what is no id: no such thing can exist."""
    text = request.match_info[name]
    # One spelling for each: rules by path, as of a proxy, could be walked around with another.
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or text.startswith("0"):
        raise NotFound
    value = int(text)
    if not 0 < value <= LARGEST_ID:
        raise NotFound
    return value
