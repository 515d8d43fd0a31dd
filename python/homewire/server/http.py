"""The HTTP server: aiohttp with errors in the format of the API, and no byte of a URL in any log."""

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
    WholeAnswer,
    accepted_coding,
    error_answer,
    may_be_compressed,
)
from homewire.server.browser import allow_origins, expire_dead_cookies, preflight
from homewire.server.clients import Peer
from homewire.server.connections import REFUSAL_DELAY_S, Connections, RequestHeaderTimeout
from homewire.server.limits import PROBES
from homewire.server.streaming import OWNERS, PIECE, Answers, AnswersFull, Streamed, owners_of

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
SAFE_METHODS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
"""They change nothing, so that their answers may be refused."""
_METHOD: Final = re.compile(r"[A-Za-z][!#$%&'*+.^_`|~0-9A-Za-z-]{0,31}")
NO_CONTENT: Final = 204
UNAUTHORIZED: Final = 401
Render = Callable[[web.Request, RequestError], web.Response]
"""How an error looks at the path that was asked."""


def render_errors(render: Render, count: Callable[[web.Request], None] | None = None) -> Any:
    """The middleware that renders every error that a handler raises, and those of routing.

    `count` is told of each request first, and raises TooManyRequests for one too many. A probe beyond the
    limit is only delayed. Every 429 is answered `REFUSAL_DELAY_S` later.
    """

    @web.middleware
    async def rendering(request: web.Request, handler: Handler) -> web.StreamResponse:
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
        except web.HTTPMethodNotAllowed as error:
            if request.method == hdrs.METH_OPTIONS:
                return preflight(request, error.allowed_methods)
            return render(request, MethodNotAllowed(", ".join(sorted(error.allowed_methods))))
        except web.HTTPException as error:
            if error.status == 404:
                return render(request, _unknown(request))
            return render(request, InvalidInput("request", error.reason))
        except ConnectionResetError:
            raise
        except Exception:
            # The path template only: a real path or query may carry a key.
            resource = request.match_info.route.resource
            logger.exception("request failed", extra={"route": resource.canonical if resource else None})
            return render(request, InternalError())

    return rendering


def _refuse_other_host(request: web.Request) -> None:
    """Raise InvalidInput if a target in absolute form is for another host than Host says.

    RFC 9112 section 3.2.2 lets the target win. A proxy may have looked at the header, so none wins here.
    """
    target, host = origin_of(request.raw_path), request.headers.get(hdrs.HOST, "")
    if target is not None and target != origin_of(f"{target.partition(':')[0]}://{host}"):
        raise InvalidInput("Host", "is another host than that of the request's target")


class QuietRequestHandler(RequestHandler):
    """Answers what aiohttp's parser refuses in our shape, and has `RequestHeaderTimeout` time its heads.

    aiohttp logs such a request with its first bytes, and those may be a key in a URL.
    """

    def __init__(self, server: QuietServer, peer: Peer, left: Callable[[], None], **options: Any) -> None:
        super().__init__(server, **options)
        self.peer = peer
        """The other end of the connection (`http.clients`)."""
        self._left = left
        self._options = server.http_options
        self._answers = server.http_options.answers
        self._header_timeout = server.header_timeout
        self._connections = server.bounds
        self._body: StreamReader = EMPTY_PAYLOAD
        """Of the last request that began."""
        self._answering = False
        self._early = False
        """Whether something of a next request came while one was being answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection without a word waits for its head too."""
        self._header_timeout.expect(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """There is nothing to time any more."""
        self._header_timeout.came(self)
        self._connections.stirs(self)
        self._left()
        super().connection_lost(exc)

    def cut(self) -> None:
        """End the connection at once: a client that answers nothing can't delay it, not even with TLS."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes that belong to no body are the beginning of a head, or more of it."""
        # aiohttp calls this with nothing when it reads on after a pause.
        if data and self._body.is_eof():
            if self._answering:
                self._early = True
            else:
                self._connections.stirs(self)
                self._header_timeout.expect(self)
        super().data_received(data)

    def request_begins(self, body: StreamReader) -> None:
        """A head is complete, and its request is the next to be answered."""
        self._header_timeout.came(self)
        self._connections.stirs(self)
        self._body = body
        self._answering = True
        self._early = False

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Writes the answer; what came meanwhile is the head that is awaited now."""
        if isinstance(resp, web.HTTPExpectationFailed):
            # aiohttp looks at this header before any middleware does.
            resp = error_answer(InvalidInput("Expect", "must be 100-continue"))
        if self._connections.closing:
            resp.force_close()
        # Here, and not in a signal of the application: this sees what the parser refused, too.
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
            self._connections.rests(self)
        return outcome

    def _complete(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """What every answer says. One that is written whole says all of this itself."""
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
                # Of a change the client is told in any case: it has happened.
                count = self._answers.admit if request.method in SAFE_METHODS else self._answers.count
                outgoing = count(owners, len(body))
            except AnswersFull as error:
                response = error_answer(error)
                self._complete(request, response)
            else:
                streamed = Streamed.of(request, response, body, outgoing)
                if response.compression:
                    streamed.enable_compression(accepted_coding(request))
                return await super().finish_response(request, streamed, start_time)
        with self._answers.count((), 0) as outgoing:
            try:
                async with outgoing.writing(request, PIECE):
                    return await super().finish_response(request, response, start_time)
            except ConnectionError:
                return response, True

    async def _wait_for_client(self, request: web.BaseRequest) -> bool:
        """Until it has taken what it was answered. Whether it is gone instead, or was cut because it did not.

        A client that asks on and on without reading would be answered into memory otherwise.
        """
        with self._answers.count((), 0) as outgoing:
            try:
                async with outgoing.writing(request, PIECE):
                    await request.writer.drain()
            except ConnectionError:
                return True
        return False

    def log_exception(self, *args: Any, **options: Any) -> None:
        """What aiohttp did not expect. A body whose encoding is damaged is no fault of the node."""
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
        """The answer to a request that could not be parsed, or whose handler broke."""
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
    """Whether what the parser took for a bad method is a request line with a method that it does not know.

    What follows a body that is longer than its Content-Length is none.
    """
    _, _, line = message.partition("b'")
    method, _, rest = line.partition(" ")
    return _METHOD.fullmatch(method) is not None and " HTTP/1." in rest


def _problem(exc: BaseException | None) -> str:
    if isinstance(exc, LineTooLong):
        return "the request line or a header is too long"
    # The usual cause is a client that counts its Content-Length in characters.
    return "this is not HTTP/1.1 as RFC 9112 has it, or it follows a body longer than its Content-Length"


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How a server treats its connections."""

    request_line_bytes: int
    keep_alive_s: float = 75.0
    """How long a connection may rest between two requests."""
    hsts: str = ""
    """What tells browsers to come by https alone; empty: nothing does."""
    any_origin: bool = True
    """Whether pages of any origin may read its answers."""
    cookie_origins: frozenset[str] = frozenset()
    """Whose pages may, also when they ask with a cookie."""
    answers: Answers = field(default_factory=Answers)
    """How many bytes of answers may be held, and how fast they have to be taken."""


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
        """The protocol of a new connection; `left` is called when it ended or was given away."""
        return QuietRequestHandler(self, peer, left, loop=self._loop, **self._kwargs)


async def make_runner(
    app: web.Application,
    http_options: HttpOptions,
    header_timeout: RequestHeaderTimeout,
    connections: Connections | None = None,
) -> tuple[web.ServerRunner, QuietServer]:
    """Starts `app` behind a `QuietServer`. Clean the runner up before `app.cleanup()`. Without `connections`
    there are no bounds on them.

    aiohttp offers no way to name the handler class, so its own runner prepares the
    application, and the finished handler and request factory move into our server.
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
        inner.request_handler,
        request_factory=begin,
        access_log=None,
        max_line_size=http_options.request_line_bytes,
        max_field_size=16_384,
        lingering_time=2.0,
        keepalive_timeout=http_options.keep_alive_s,
    )
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=2.0)
    await runner.setup()
    return runner, server
