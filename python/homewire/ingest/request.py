"""What every ingest handler does with a request: path ids, permissions, a bounded body."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from homewire.errors import InvalidInput, NotFound, PermissionDenied
from homewire.ingest.bodies import BodiesFull
from homewire.ingest.context import Ingest
from homewire.model import Permission, Principal, PrincipalKind

LARGEST_ID = 2**63 - 1


class UnreadBody(InvalidInput):
    """A body that was not read to its end: what follows on the connection cannot be a request."""

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Connection": "close"}


def path_id(request: web.Request, name: str) -> int:
    """The id in the path. Raises NotFound for what is no id: no such thing can exist."""
    text = request.match_info[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise NotFound
    value = int(text)
    if not 0 < value <= LARGEST_ID:
        raise NotFound
    return value


def require_project_key(principal: Principal, permission: Permission) -> None:
    """Raises PermissionDenied unless `principal` is a project key with `permission`."""
    if principal.kind is not PrincipalKind.PROJECT_KEY or permission not in principal.permissions:
        raise PermissionDenied(needs=f"a project key with the permission {permission}")


async def read_body(request: web.Request, ingest: Ingest, limit: int) -> bytes:
    """The body, decompressed, at most `limit` bytes of it.

    Raises UnreadBody when it is too large, incomplete, too slow or badly compressed, BodiesFull when
    others hold as much as may be held.
    """
    content = request.content
    announced = request.content_length
    if announced is not None and announced > limit:
        raise _too_large(request, limit)
    _hold(request, ingest, announced or 0)
    try:
        # The usual request arrived whole, in one segment with its head.
        body = content.read_nowait() if content.is_eof() else await _collect(request, ingest, limit)
        _hold(request, ingest, len(body))
    except TimeoutError as error:
        raise UnreadBody("body", "the body is incomplete: Content-Length counts bytes") from error
    except (web.RequestPayloadError, HttpProcessingError) as error:
        _read_no_further(request)
        raise UnreadBody("body", "the body's encoding is damaged") from error
    except (ConnectionError, web.PayloadAccessError) as error:
        raise UnreadBody("body", "the connection ended before the body did") from error
    if len(body) > limit:
        raise _too_large(request, limit)
    return body


async def _collect(request: web.Request, ingest: Ingest, limit: int) -> bytes:
    """Read until the end or just past `limit`, whichever comes first."""
    loop, content = asyncio.get_running_loop(), request.content
    end = loop.time() + ingest.body_timeout
    chunks: list[bytes] = []
    size = 0
    async with asyncio.timeout(ingest.body_silence) as patience:
        while size <= limit and not content.at_eof():
            chunk = await content.readany()
            size += len(chunk)
            chunks.append(chunk)
            _hold(request, ingest, size)
            patience.reschedule(min(end, loop.time() + ingest.body_silence))
    return b"".join(chunks)


def _hold(request: web.Request, ingest: Ingest, size: int) -> None:
    try:
        ingest.bodies.hold(request, size)
    except BodiesFull:
        if request.headers.get("Content-Encoding") is not None:
            _read_no_further(request)
        raise


def _too_large(request: web.Request, limit: int) -> UnreadBody:
    if request.headers.get("Content-Encoding") is not None:
        _read_no_further(request)
    return UnreadBody("body", f"larger than {limit} bytes")


def _read_no_further(request: web.Request) -> None:
    """Close after the answer, without the rest of the body.

    Elsewhere aiohttp reads on for a while, so that a client still sending sees the answer. Here it would
    go on decompressing (4 MiB of gzip can hold 4 GiB), or log a damaged body as an unhandled error.
    """
    request.content.feed_eof()
    request.protocol.close()
