"""The HTTP server: aiohttp with errors in the format of the API, and without URLs in logs."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import StreamReader, hdrs, web
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

from homewire.errors import (
    InternalError,
    InvalidInput,
    MethodNotAllowed,
    MethodNotImplemented,
    RequestError,
    TooManyRequests,
    UnknownPath,
)
from homewire.hosts import origin_of
from homewire.server.answers import (
    CHALLENGE,
    PRIVATE,
    SERVER,
    HandedOff,
    WholeAnswer,
    accepted_coding,
    error_answer,
    may_be_compressed,
)
from homewire.server.browser import allow_origins, expire_dead_cookies, preflight
from homewire.server.clients import Peer
from homewire.server.connections import REFUSAL_DELAY_S, Connections, RequestHeaderTimeout
from homewire.server.limits import PROBES
from homewire.server.streaming import (
    OWNERS,
    PIECE,
    ResponseBudget,
    ResponseBudgetFull,
    StreamedResponse,
    owners_of,
)

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SAFE_METHODS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
"""These methods change nothing, so that their answers may be refused."""
_METHOD: Final = re.compile(r"[A-Za-z][!#$%&'*+.^_`|~0-9A-Za-z-]{0,31}")
NO_CONTENT: Final = 204
UNAUTHORIZED: Final = 401
Render = Callable[[web.Request, RequestError], web.Response]
"""Makes the answer to a request that ended in an error."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """What is done with each request of a port before its handler is found, and with the errors of both.

    No middleware: aiohttp builds and enters those for each request anew, which costs more than all of this.
    """

    render: Render
    count: Callable[[web.Request], None] | None = None
    """Called for each request first. Raises TooManyRequests beyond the limit.

    A probe beyond the limit is only delayed. Every 429 is answered `REFUSAL_DELAY_S` later.
    """

    def around(self, handler: Handler) -> Handler:
        """The handler with errors rendered, those of routing included."""
        render, count = self.render, self.count

        async def rendering(request: web.Request) -> web.StreamResponse:
            try:
                if count is not None:
                    try:
                        count(request)
                    except TooManyRequests:
                        if request.path not in PROBES:
                            raise
                        await asyncio.sleep(REFUSAL_DELAY_S)
                if not request.raw_path.startswith("/"):
                    _refuse_other_host(request)
                return await handler(request)
            except RequestError as error:
                if isinstance(error, TooManyRequests):
                    await asyncio.sleep(REFUSAL_DELAY_S)
                return render(request, error)
            except (ConnectionResetError, web.HTTPExpectationFailed):
                raise
            except web.HTTPMethodNotAllowed as error:
                if request.method == hdrs.METH_OPTIONS:
                    return preflight(request, error.allowed_methods)
                return render(request, MethodNotAllowed(", ".join(sorted(error.allowed_methods))))
            except web.HTTPException as error:
                if error.status == 404:
                    return render(request, _unknown(request))
                return render(request, InvalidInput("request", error.reason))
            except Exception:
                # Only the template of the path is logged: a path or query may have a key.
                resource = request.match_info.route.resource
                logger.exception("request failed", extra={"route": resource.canonical if resource else None})
                return render(request, InternalError())

        return rendering


def _refuse_other_host(request: web.Request) -> None:
    """Raise InvalidInput if a target in absolute form and the header Host name different hosts.

    RFC 9112 section 3.2.2 lets the target win. But a proxy may have used the header, so both must agree here.
    """
    target, host = origin_of(request.raw_path), request.headers.get(hdrs.HOST, "")
    if target is not None and target != origin_of(f"{target.partition(':')[0]}://{host}"):
        raise InvalidInput("Host", "is another host than that of the request's target")


class QuietRequestHandler(RequestHandler):
    """A connection. It answers invalid requests in the format of the API, without logging them, and has its
    request heads timed by `RequestHeaderTimeout`.

    aiohttp logs an invalid request with its first bytes, which may contain a key.
    """

    def __init__(self, server: QuietServer, peer: Peer, left: Callable[[], None], **options: Any) -> None:
        super().__init__(server, **options)
        self.peer = peer
        """The other end of the connection (`server.clients`)."""
        self._left = left
        self._options = server.http_options
        self._response_budget = server.http_options.response_budget
        self._header_timeout = server.header_timeout
        self._connections = server.bounds
        self._body: StreamReader = EMPTY_PAYLOAD
        """The body of the last request."""
        self._answering = False
        self._early = False
        """Whether bytes of the next request came while a request was answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first head is expected as soon as the connection is open."""
        self._header_timeout.expect(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop timing, and leave the place of the address."""
        self._header_timeout.completed(self)
        self._connections.became_busy(self)
        self._left()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close the connection at once, without the closing handshake of TLS, which a client could delay."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes after the end of a body are of a request head."""
        # aiohttp calls this without data when it resumes reading.
        if data and self._body.is_eof():
            if self._answering:
                self._early = True
            else:
                self._connections.became_busy(self)
                self._header_timeout.expect(self)
        super().data_received(data)

    def request_begins(self, body: StreamReader) -> None:
        """A request head is complete, and its request is handled next."""
        self._header_timeout.completed(self)
        self._connections.became_busy(self)
        self._body = body
        self._answering = True
        self._early = False

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer. If bytes of the next request came in the meantime, its head is timed from now
        on."""
        if type(resp) is HandedOff:
            # The connection is the core's, and this object's end follows.
            return await super().finish_response(request, resp, start_time)
        if isinstance(resp, web.HTTPExpectationFailed):
            # aiohttp checks this header before it calls a handler.
            resp = error_answer(InvalidInput("Expect", "must be 100-continue"))
        if self._connections.closing:
            resp.force_close()
        # Not in a signal of the application, which does not see requests that the parser refused.
        self._complete(request, resp)
        if type(resp) is WholeAnswer:
            outcome = await super().finish_response(request, resp, start_time)
            if self.writing_paused:
                outcome = resp, await self._wait_for_client(request)
        elif isinstance(resp, web.Response):
            outcome = await self._finish_whole(request, resp, start_time)
        else:
            outcome = await super().finish_response(request, resp, start_time)
        self._answering = False
        if self.transport is None:
            return outcome
        if self._early:
            self._header_timeout.expect(self)
        else:
            self._connections.became_idle(self)
        return outcome

    def _complete(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Add the headers of every answer. A `WholeAnswer` has them already."""
        if type(response) is WholeAnswer:
            return
        headers = response.headers
        headers[hdrs.SERVER] = SERVER
        if self._options.hsts:
            headers["Strict-Transport-Security"] = self._options.hsts
        if response.status != NO_CONTENT:
            for name, value in PRIVATE.items():
                headers.setdefault(name, value)
        if response.status == UNAUTHORIZED:
            headers.setdefault(hdrs.WWW_AUTHENTICATE, CHALLENGE)
        if self._options.any_origin:
            allow_origins(request, response, self._options.cookie_origins)
        expire_dead_cookies(request, response)
        if may_be_compressed(request, response):
            headers.add(hdrs.VARY, hdrs.ACCEPT_ENCODING)
            if (coding := accepted_coding(request)) is not None:
                response.enable_compression(coding)

    async def _finish_whole(
        self, request: web.BaseRequest, response: web.Response, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        body = response.body
        if isinstance(body, bytes) and len(body) > PIECE:
            owners = request.get(OWNERS) or owners_of(None, request)
            try:
                # The answer to a change is never refused, because the change was made.
                count = (
                    self._response_budget.admit
                    if request.method in SAFE_METHODS
                    else self._response_budget.count
                )
                unread = count(owners, len(body))
            except ResponseBudgetFull as error:
                response = error_answer(error)
                self._complete(request, response)
            else:
                streamed = StreamedResponse.of(request, response, body, unread)
                if response.compression:
                    streamed.enable_compression(accepted_coding(request))
                return await super().finish_response(request, streamed, start_time)
        with self._response_budget.count((), 0) as unread:
            try:
                async with unread.writing(request, PIECE):
                    return await super().finish_response(request, response, start_time)
            except ConnectionError:
                return response, True

    async def _wait_for_client(self, request: web.BaseRequest) -> bool:
        """Wait until the client has taken its answer. Returns whether the connection is closed instead.

        Otherwise the answers to a client that sends requests without reading would fill the memory.
        """
        with self._response_budget.count((), 0) as unread:
            try:
                async with unread.writing(request, PIECE):
                    await request.writer.drain()
            except ConnectionError:
                return True
        return False

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Log an unexpected error. An invalid encoding of a body is a fault of the client, and logged as
        debug."""
        error = options.get("exc_info")
        if isinstance(error, web.RequestPayloadError | HttpProcessingError):
            logger.debug("a body could not be read to its end: %s", type(error).__name__)
        else:
            super().log_exception(*args, **options)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 (aiohttp's signature; it quotes the request)
    ) -> web.StreamResponse:
        """The answer to a request that could not be parsed, or whose handler failed unexpectedly."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        if status == 500:
            logger.error("request failed outside its handler: %s", type(exc).__name__)
            response = error_answer(InternalError())
        elif isinstance(exc, BadHttpMethod) and _names_method(exc.message):
            response = error_answer(MethodNotImplemented())
        else:
            response = error_answer(InvalidInput("request", _problem(exc)))
        response.force_close()
        return response


def _unknown(request: web.Request) -> UnknownPath:
    if request.path.endswith("/"):
        return UnknownPath(problem="no path ends with a slash")
    return UnknownPath()


def _names_method(message: str) -> bool:
    """Whether the parser refused a request line because of an unknown method.

    It also refuses bytes that follow a body longer than its Content-Length. These are no request line.
    """
    _, _, line = message.partition("b'")
    method, _, rest = line.partition(" ")
    return _METHOD.fullmatch(method) is not None and " HTTP/1." in rest


def _problem(exc: BaseException | None) -> str:
    if isinstance(exc, LineTooLong):
        return "the request line or a header is too long"
    # The usual cause is a client that counts its Content-Length in characters.
    return "not valid HTTP/1.1 (RFC 9112), or bytes after a body that is longer than its Content-Length"


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Options of the connections of a server."""

    request_line_bytes: int
    keep_alive_s: float = 75.0
    """How long a connection may be idle between two requests."""
    hsts: str = ""
    """The value of Strict-Transport-Security; empty: no such header."""
    any_origin: bool = True
    """Whether pages of any origin may read the answers."""
    cookie_origins: frozenset[str] = frozenset()
    """Origins whose pages may also read answers to requests with a cookie."""
    response_budget: ResponseBudget = field(default_factory=ResponseBudget)
    """The budget of unread answers, and the pace at which clients must read them."""


class QuietServer(web.Server):
    """A server whose connections are `QuietRequestHandler`s."""

    def __init__(
        self,
        http_options: HttpOptions,
        header_timeout: RequestHeaderTimeout,
        connections: Connections,
        handler: Any,
        **options: Any,
    ) -> None:
        super().__init__(handler, **options)
        self.http_options = http_options
        self.header_timeout = header_timeout
        self.bounds = connections

    def serve(self, peer: Peer, left: Callable[[], None]) -> RequestHandler:
        """The protocol of a new connection. `left` is called when it ended, or was handed to the core."""
        return QuietRequestHandler(self, peer, left, loop=self._loop, **self._kwargs)


async def make_runner(
    app: web.Application,
    http_options: HttpOptions,
    header_timeout: RequestHeaderTimeout,
    rendering: Rendering,
    connections: Connections | None = None,
) -> tuple[web.ServerRunner, QuietServer]:
    """Start `app` on a `QuietServer`. Without `connections` their number has no bounds.

    The runner must be cleaned up before `app.cleanup()`. aiohttp has no option for the class of connections.
    So its own runner prepares the application, and the `QuietServer` takes its handler and request factory.
    """
    prepared = web.AppRunner(app, access_log=None, handle_signals=False)
    await prepared.setup()
    inner = prepared.server
    if inner is None:
        raise RuntimeError("aiohttp prepared no server")
    make_request = inner.request_factory

    def begin(
        message: Any, body: StreamReader, protocol: QuietRequestHandler, writer: Any, task: Any
    ) -> web.BaseRequest:
        protocol.request_begins(body)
        return make_request(message, body, protocol, writer, task)

    server = QuietServer(
        http_options,
        header_timeout,
        Connections(header_timeout) if connections is None else connections,
        rendering.around(inner.request_handler),
        request_factory=begin,
        access_log=None,
        max_line_size=http_options.request_line_bytes,
        max_field_size=16_384,
        # The listening sockets have the option, and accepted ones inherit it.
        tcp_keepalive=False,
        lingering_time=2.0,
        keepalive_timeout=http_options.keep_alive_s,
    )
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=2.0)
    await runner.setup()
    return runner, server
