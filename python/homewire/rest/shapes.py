"""The formats of errors: each family of resources has its own, and one function renders them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from aiohttp import web

from homewire.errors import InvalidInput, LoginRefused, NotFound, RequestError, Unauthenticated, UnknownPath
from homewire.rest import models
from homewire.server.answers import json_answer


@dataclass(frozen=True, slots=True, eq=False)
class ErrorShape:
    """The format of the errors of some operations."""

    name: str
    """Begins the names of its responses in the OpenAPI document."""
    schema: type[msgspec.Struct]
    """The type of the result of `content`."""
    content: Callable[[RequestError], Mapping[str, Any]]
    texts: Mapping[int, tuple[str, str]]
    """The name and description of the response with each status, for the OpenAPI document."""
    statuses: Mapping[type[RequestError], int]
    """The statuses of errors that differ here from the default."""
    refused_as_403: frozenset[int] = frozenset()
    """Statuses that become 403 for an operation whose table lacks them."""

    def status(self, error: RequestError) -> int:
        """The HTTP status of an error."""
        for kind in type(error).__mro__:
            if kind in self.statuses:
                return self.statuses[kind]
        return error.status

    def answer(self, error: RequestError) -> web.Response:
        """The whole answer."""
        return json_answer(self.status(error), self.content(error), error.headers)


class RocketChatError(models.Answer, omit_defaults=True):
    """An error of the Rocket.Chat sessions."""

    success: bool
    error: str
    error_type: str | None = None
    """The kind of the error, like `invalid-params`."""
    status: str | None = None
    """With a 401: `error`."""
    message: str | None = None
    """With a 401: the same as `error`."""


def _reason_and_data(error: RequestError) -> Mapping[str, Any]:
    return {"reason": error.reason, "data": error.data}


def _rocket_chat(error: RequestError) -> Mapping[str, Any]:
    text = _rocket_chat_text(error)
    if isinstance(error, LoginRefused | Unauthenticated):
        return {"status": "error", "message": text, "success": False, "error": text}
    content = {"success": False, "error": text}
    if isinstance(error, InvalidInput):
        content["errorType"] = "invalid-params"
    elif not isinstance(error, NotFound):
        content["errorType"] = error.reason.lower().replace("_", "-")
    return content


def _rocket_chat_text(error: RequestError) -> str:
    match error:
        case LoginRefused():
            return "Unauthorized"
        case Unauthenticated():
            return "You must be logged in to do this."
        case UnknownPath():
            return "API endpoint does not exist"
        case NotFound():
            return "Session not found"
        case InvalidInput():
            return f"{error.data['field']}: {error.data['problem']}"
        case _:
            return str(error.data.get("problem") or error.reason.replace("_", " ").capitalize())


_ANY_SHAPE: Final = {
    404: ("NotFound", "Unknown, or invisible to the caller."),
    405: ("MethodNotAllowed", "The path does not have this method."),
    409: ("InUse", "Another request of the session has not finished. Try again."),
    429: ("TooManyRequests", "A limit was reached."),
    500: ("InternalError", "An internal error."),
    503: ("Unavailable", "The service cannot answer now."),
}
_STRICT: Final = {
    **_ANY_SHAPE,
    400: ("BadInput", "Bad input; AMBIGUOUS_PROJECT if neither a key nor the host names the project."),
    401: ("Unauthenticated", "No key, or an invalid one; a refused login."),
    403: ("Refused", "Not permitted; a request of a page of another origin with the cookie of a session."),
}
_STRICT_STATUSES: Final = {InvalidInput: 400, LoginRefused: 401}

MODE: Final = ErrorShape(
    "",
    models.Error,
    _reason_and_data,
    {
        **_ANY_SHAPE,
        401: ("Unauthenticated", "No key, or an invalid one."),
        403: ("Refused", "Bad input, named in `data`, or not permitted."),
    },
    {},
    refused_as_403=frozenset({401, 404}),
)
"""The errors of the MODE resources (spec 000, 001): bad input is 403."""
SESSIONS: Final = ErrorShape("Sessions", models.Error, _reason_and_data, _STRICT, _STRICT_STATUSES)
"""The errors of Sessions Controller and NData (spec 002, 003): bad input is 400, a refused login 401."""
ROCKET_CHAT: Final = ErrorShape("RocketChat", RocketChatError, _rocket_chat, _STRICT, _STRICT_STATUSES)
"""The errors of the Rocket.Chat sessions (spec 004)."""

SHAPES: Final = (MODE, SESSIONS, ROCKET_CHAT)
PATHS: Final = (
    ("/session", SESSIONS),
    ("/api/session", SESSIONS),
    ("/sessions", SESSIONS),
    ("/api/v1", ROCKET_CHAT),
)
"""Beginnings of paths, and the shape of errors below them, also where there is no operation."""
SHAPE: Final = web.RequestKey("shape", ErrorShape)
"""The error shape of the operation that serves a request."""


def rendered(request: web.Request, error: RequestError) -> web.Response:
    """The answer to a request that ended in an error."""
    return (request.get(SHAPE) or of_path(request.path)).answer(error)


def of_path(path: str) -> ErrorShape:
    """The shape of the errors of a path."""
    for beginning, shape in PATHS:
        if path == beginning or path.startswith(beginning + "/"):
            return shape
    return MODE
