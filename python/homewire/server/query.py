"""Percent-encoded text and the names of query parameters: what a client must have meant otherwise is refused.

The library leaves an escape that is not UTF-8 as it stands, so that `k%FCche`, Latin-1 for *küche*, would be
the name `k%FCche`. It never raises.

Ids in paths.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

from aiohttp import web

from homewire.errors import InvalidInput, NotFound

_NOT_UTF8 = "must be UTF-8, percent-encoded"


def require_utf8_query(request: web.Request) -> None:
    """Raises InvalidInput, naming the parameter, if an escape in the query is not UTF-8."""
    raw = request.rel_url.raw_query_string
    if "%" not in raw:
        return
    for pair in raw.split("&"):
        if not _is_utf8(pair):
            name = pair.partition("=")[0]
            raise InvalidInput(name if name.isidentifier() else "query", _NOT_UTF8)


def require_utf8_path(request: web.Request) -> None:
    """Raises InvalidInput, naming the last part that varies, if an escape in the path is not UTF-8."""
    raw = request.rel_url.raw_path
    if "%" in raw and not _is_utf8(raw):
        # The parts before it are ids, which were read as numbers.
        raise InvalidInput([*request.match_info, "path"][-2], _NOT_UTF8)


def refuse_misspelt(request: web.Request, known: Iterable[str]) -> None:
    """Raises InvalidInput for a parameter that is a known one but for case, `_` or `-`, or a missing `Id`.

    Ignored like other unknown parameters, a misspelt filter would widen what is asked for.
    """
    names = set(known)
    unknown = [name for name in request.query if name not in names]
    if not unknown:
        return
    meant = {_folded(name): name for name in names}
    for name in unknown:
        right = meant.get(_folded(name))
        if right is not None:
            raise InvalidInput(right, f"is spelled {right}: the query has another spelling of it")


def _folded(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").removesuffix("s").removesuffix("id")


def _is_utf8(text: str) -> bool:
    try:
        unquote_to_bytes(text).decode()
    except UnicodeError:
        return False
    return True


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
