"""Makes routes of the table of operations, and does for each request what all operations have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import msgspec
from aiohttp import hdrs, web

from homewire.audit import note_caller
from homewire.auth.models import Principal
from homewire.errors import (
    Conflict,
    InUse,
    NotFound,
    PermissionDenied,
    RequestError,
    Unauthenticated,
    UnknownRecord,
)
from homewire.hosts import listed_origins
from homewire.rest.context import RestContext
from homewire.rest.decoding import decode_fields, decode_form, decode_json
from homewire.rest.operation import TEXTS, Access, BodyKind, Call, Chunks, NoQuery, Operation, WithCookie
from homewire.rest.shapes import SHAPE
from homewire.server.answers import JSON, RANGE, names_key, whole_answer
from homewire.server.browser import expire_cookie, refuse_cross_site, set_cookie
from homewire.server.requests import path_id, require_utf8_path, require_utf8_query
from homewire.server.streaming import OWNERS, StreamedResponse, owners_of
from homewire.store.parts import Part

NO_CONTENT: Final = 204

_NO_QUERY: Final[Any] = NoQuery()
_encode: Final = msgspec.json.Encoder().encode


def routes(context: RestContext, operations: Iterable[Operation]) -> list[web.RouteDef]:
    """The routes of the operations, to be mounted at the URL root."""
    return [
        web.RouteDef(each.method, each.path, partial(serve, context, each, _ids(each)), {})
        for each in operations
    ]


def _ids(operation: Operation) -> tuple[str, ...]:
    """The names of the ids in its path."""
    return tuple(name for name in operation.parts if name not in TEXTS)


async def serve(
    context: RestContext, operation: Operation, names: Sequence[str], request: web.Request
) -> web.StreamResponse:
    """Answer one request; `names` are those of the ids in its path.

    Raises RequestError with a status that the operation's table has.
    """
    request[SHAPE] = operation.shape
    context.audit.begins(request, operation)
    try:
        call = await _call(context, operation, names, request)
        async with context.turns.of(call.caller, request):
            answer = await operation.handler(context, call)
        if isinstance(answer, Part) and answer.rest is not None:
            answer = Chunks(_json_pages(answer.first, answer.rest), {RANGE: range_header(answer)})
        if isinstance(answer, Chunks):
            return await _streamed(context, call, answer)
        context.audit.done(request)
        if call.caller is not None and request.method == hdrs.METH_GET:
            request[OWNERS] = owners_of(call.caller, request)
        return _rendered(context, operation, request, answer)
    except UnknownRecord as error:
        raise _allowed(operation, NotFound()) from error
    except Conflict as error:
        refusal = InUse if InUse.status in operation.errors else PermissionDenied
        named = {"field": error.field} if error.field else {}
        raise refusal(error.reason, **named, problem=str(error)) from error
    except RequestError as error:
        raise _allowed(operation, error) from error


async def _call(
    context: RestContext, operation: Operation, names: Sequence[str], request: web.Request
) -> Call[Any, Any]:
    if operation.sets_cookie:
        refuse_cross_site(request, listed_origins(context.settings.cookie_origins))
    caller = await _caller(context, operation.access, request)
    ids = {name: path_id(request, name) for name in names}
    if operation.action is not None and caller is not None:
        await context.authorisation.require(caller, operation.action, operation.resource(ids))
    require_utf8_path(request)
    query = _NO_QUERY
    if operation.query is not NoQuery:
        require_utf8_query(request)
        query = decode_fields("query", request.query, operation.query)
    return Call(request, caller, ids, query, await _body(context, operation, request))


async def _caller(context: RestContext, access: Access, request: web.Request) -> Principal | None:
    if access.by_handler:
        return None
    try:
        caller = await context.authenticate(request)
    except Unauthenticated:
        # A browser keeps the cookie of a session that is over: only a key in a header must be valid.
        if access.anonymous and not names_key(request):
            return None
        raise
    note_caller(request, caller)
    access.require(caller)
    return caller


async def _body(context: RestContext, operation: Operation, request: web.Request) -> Any:
    if operation.body is None:
        # Read all the same: a DELETE may have one, and the next request stands behind it.
        if request.body_exists:
            await context.reader.read(request, operation.body_bytes)
        return None
    body = await context.reader.read(request, operation.body_bytes)
    if not body and not operation.body_required:
        body = b"{}"
    if operation.body_kind is BodyKind.FORM:
        return decode_form(request.headers.get("Content-Type", ""), body, operation.body)
    return decode_json(body, operation.body)


def _allowed(operation: Operation, error: RequestError) -> RequestError:
    """The error, or a 403 if the operation has no such status."""
    if error.status in operation.shape.refused_as_403 - operation.errors:
        return PermissionDenied(**error.data)
    return error


def _rendered(
    context: RestContext, operation: Operation, request: web.Request, answer: Any
) -> web.StreamResponse:
    # First what nearly all answers are: to ask whether something is a response takes long.
    if isinstance(answer, msgspec.Struct) and operation.answer is not None and not operation.located:
        return whole_answer(request, operation.success, _encode(answer))
    if answer is None and operation.success == NO_CONTENT:
        return whole_answer(request, NO_CONTENT)
    if isinstance(answer, web.StreamResponse):
        return answer
    if isinstance(answer, WithCookie):
        response = _response(operation, answer.answer)
        if answer.key is None:
            expire_cookie(request, response, https=context.settings.by_https)
        else:
            set_cookie(request, response, answer.key, https=context.settings.by_https)
        return response
    if isinstance(answer, Part):
        return _response(operation, answer.first, {RANGE: range_header(answer)})
    if operation.located:
        made = quote(str(getattr(answer, operation.located)), safe="")
        return _response(operation, answer, {hdrs.LOCATION: f"{request.rel_url.raw_path}/{made}"})
    return _response(operation, answer)


def _response(
    operation: Operation, answer: Any, headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    if operation.answer is None:
        return web.Response(status=operation.success, headers=headers)
    return web.Response(status=operation.success, body=_encode(answer), content_type=JSON, headers=headers)


async def _streamed(context: RestContext, call: Call[Any, Any], answer: Chunks) -> web.StreamResponse:
    request = call.request
    chunks = in_turns(answer.steps, partial(context.turns.of_step, call.caller, request))
    return await StreamedResponse.begun(
        request,
        chunks,
        context.response_budget,
        owners_of(call.caller, request),
        headers=answer.headers,
        whole_s=answer.whole_s,
    )


async def in_turns(
    steps: AsyncGenerator[bytes], turn: Callable[[], AbstractAsyncContextManager[None]]
) -> AsyncGenerator[bytes]:
    """The chunks, each made in a turn of its own. A client that takes its chunk slowly holds no turn."""
    async with aclosing(steps):
        while True:
            async with turn():
                chunk = await anext(steps, None)
            if chunk is None:
                return
            yield chunk
            # A step may have waited for nothing, and neither may its client: others come first all the same.
            await asyncio.sleep(0)


async def _json_pages(first: list[Any], rest: AsyncGenerator[list[Any]]) -> AsyncGenerator[bytes]:
    """A JSON array, a page at a time."""
    chunk = _encode(first)[:-1]
    del first
    async with aclosing(rest):
        yield chunk
        async for page in rest:
            yield b"," + _encode(page)[1:-1]
    yield b"]"


def range_header(part: Part[Any]) -> str:
    """The value of RANGE for a part of a list."""
    if not part.count:
        return f"*/{part.total}"
    return f"{part.start}-{part.start + part.count - 1}/{part.total}"
