"""How errors look: each family of resources has a shape of its own, and one function renders them all."""

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
    """What the errors of some operations look like."""

    name: str
    """Begins the names of its responses in the OpenAPI document."""
    schema: type[msgspec.Struct]
    """What `content` looks like."""
    content: Callable[[RequestError], Mapping[str, Any]]
    texts: Mapping[int, tuple[str, str]]
    """For each status: how its response is named in the document, and what it says."""
    statuses: Mapping[type[RequestError], int]
    """Of the kinds of errors that have another status here than they say themselves."""
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
    """What is wrong with what was asked: `invalid-params` and the like."""
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
    404: ("NotFound", "Unknown, or not for the caller to see."),
    405: ("MethodNotAllowed", "The path does not have this method."),
    409: ("InUse", "A request that was made with the session is not done yet. Try again."),
    429: ("TooManyRequests", "A limit was reached."),
    500: ("InternalError", "Something is broken here."),
    503: ("Unavailable", "The service cannot answer now."),
}
_STRICT: Final = {
    **_ANY_SHAPE,
    400: ("BadInput", "Bad input. Where no key names the project: AMBIGUOUS_PROJECT if nothing else does."),
    401: ("Unauthenticated", "No key, or one that is not (or no longer) valid; a login that was refused."),
    403: ("Refused", "Not permitted; also what a page of another origin asks with the cookie of a session."),
}
_STRICT_STATUSES: Final = {InvalidInput: 400, LoginRefused: 401}

MODE: Final = ErrorShape(
    "",
    models.Error,
    _reason_and_data,
    {
        **_ANY_SHAPE,
        401: ("Unauthenticated", "No key, or one that is not (or no longer) valid."),
        403: ("Refused", "Bad input, named in `data`, or not permitted."),
    },
    {},
    refused_as_403=frozenset({401, 404}),
)
"""Of the MODE resources (spec 000, 001): all that is bad is 403."""
SESSIONS: Final = ErrorShape("Sessions", models.Error, _reason_and_data, _STRICT, _STRICT_STATUSES)
"""Of Sessions Controller and NData (spec 002, 003): bad input is 400, a refused login 401."""
ROCKET_CHAT: Final = ErrorShape("RocketChat", RocketChatError, _rocket_chat, _STRICT, _STRICT_STATUSES)
"""Of the Rocket.Chat sessions (spec 004)."""

SHAPES: Final = (MODE, SESSIONS, ROCKET_CHAT)
PATHS: Final = (
    ("/session", SESSIONS),
    ("/api/session", SESSIONS),
    ("/sessions", SESSIONS),
    ("/api/v1", ROCKET_CHAT),
)
"""Where a path begins with one of these, its errors have that shape, whether there is an operation or not."""
SHAPE: Final = web.RequestKey("shape", ErrorShape)
"""Of the operation that serves a request."""


def rendered(request: web.Request, error: RequestError) -> web.Response:
    """The answer to a request that ended in an error."""
    return (request.get(SHAPE) or of_path(request.path)).answer(error)


def of_path(path: str) -> ErrorShape:
    """The shape of the errors of a path."""
    for beginning, shape in PATHS:
        if path == beginning or path.startswith(beginning + "/"):
            return shape
    return MODE
