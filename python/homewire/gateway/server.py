"""aiohttp's server with our manners: errors in our shape, and no byte of a URL in any log."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from homewire.errors import InvalidInput, RequestError

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def error_response(
    status: int, reason: str, data: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error as the MODE resources answer it: JSON ``{"reason", "data"}``."""
    response = web.Response(
        status=status,
        body=orjson.dumps({"reason": reason, "data": data}),
        content_type="application/json",
        headers=headers,
    )
    if headers and headers.get("Connection") == "close":
        response.force_close()
    return response


@web.middleware
async def render_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Renders every error that a handler raises, and those of routing."""
    try:
        return await handler(request)
    except RequestError as error:
        return error_response(error.status, error.reason, error.data, error.headers)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return error_response(405, "METHOD_NOT_ALLOWED", {"allowed": allowed}, {"Allow": allowed})
    except web.HTTPException as error:
        return error_response(error.status, "NOT_FOUND" if error.status == 404 else "INVALID_PARAMETER", {})
    except ConnectionResetError:
        raise
    except Exception:
        # The path template only: a real path or query may carry a key.
        resource = request.match_info.route.resource
        logger.exception("request failed", extra={"route": resource.canonical if resource else None})
        return error_response(500, "INTERNAL_ERROR", {})


class QuietRequestHandler(RequestHandler):
    """Answers what aiohttp's parser refuses in our shape.

    aiohttp logs such a request with its first bytes, and those may be a key in a URL.
    """

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
            response = error_response(500, "INTERNAL_ERROR", {})
        else:
            error = InvalidInput("request", _problem(exc))
            response = error_response(error.status, error.reason, error.data)
        response.force_close()
        return response


def _problem(exc: BaseException | None) -> str:
    if isinstance(exc, LineTooLong):
        return "the request line or a header is too long"
    # The usual cause is a client that counts its Content-Length in characters.
    return "this is not HTTP/1.1 as RFC 9112 has it, or it follows a body longer than its Content-Length"


class QuietServer(web.Server):
    """A server whose connections are `QuietRequestHandler`s."""

    def __call__(self) -> RequestHandler:
        return QuietRequestHandler(self, loop=self._loop, **self._kwargs)


async def make_runner(app: web.Application, *, request_line_bytes: int) -> web.ServerRunner:
    """Starts `app` behind a `QuietServer`. Clean the answer up before `app.cleanup()`.

    aiohttp offers no way to name the handler class, so its own runner prepares the
    application, and the finished handler and request factory move into our server.
    """
    prepared = web.AppRunner(app, access_log=None, handle_signals=False)
    await prepared.setup()
    inner = prepared.server
    if inner is None:
        raise RuntimeError("aiohttp prepared no server")
    server = QuietServer(
        inner.request_handler,
        request_factory=inner.request_factory,
        access_log=None,
        max_line_size=request_line_bytes,
        max_field_size=16_384,
        lingering_time=2.0,
        keepalive_timeout=75.0,
    )
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=2.0)
    await runner.setup()
    return runner
