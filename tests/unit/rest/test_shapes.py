"""How errors look, by the resources that they are of."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from homewire import errors
from homewire.operations import ENDPOINTS
from homewire.rest.shapes import MODE, ROCKET_CHAT, SESSIONS, SHAPE, SHAPES, ErrorShape, of_path, rendered

ERRORS: Final[tuple[errors.RequestError, ...]] = (
    errors.InvalidInput("name", "is required"),
    errors.InvalidInput("Host", "tells no project", reason="AMBIGUOUS_PROJECT"),
    errors.Unauthenticated(),
    errors.LoginRefused(problem="is wrong"),
    errors.PermissionDenied(needs="a user's key"),
    errors.NotFound(),
    errors.UnknownPath(),
    errors.MethodNotAllowed("GET"),
    errors.InUse(),
    errors.TooManyRequests("account_attempts", 7),
    errors.InternalError(),
    errors.Unavailable(),
)


def content(shape: ErrorShape, error: errors.RequestError) -> tuple[int, dict[str, Any]]:
    answer = shape.answer(error)
    assert answer.content_type == "application/json"
    assert isinstance(answer.body, bytes)
    # What the document promises.
    msgspec.json.decode(answer.body, type=shape.schema, strict=True)
    assert shape.status(error) in shape.texts
    return answer.status, msgspec.json.decode(answer.body)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("shape", SHAPES, ids=["mode", "sessions", "rocket chat"])
def test_every_error_has_every_shape(shape: ErrorShape, error: errors.RequestError) -> None:
    status, body = content(shape, error)
    if shape is ROCKET_CHAT:
        assert body["success"] is False
        assert body["error"]
    else:
        assert body == {"reason": error.reason, "data": error.data}
    strict = {errors.InvalidInput: 400, errors.LoginRefused: 401}
    assert status == (error.status if shape is MODE else strict.get(type(error), error.status))
    for name, value in error.headers.items():
        assert shape.answer(error).headers[name] == value


def test_rocket_chat_answers_agree_with_its_document() -> None:
    text = "You must be logged in to do this."
    unauthenticated = {"status": "error", "message": text, "success": False, "error": text}
    assert content(ROCKET_CHAT, errors.Unauthenticated()) == (401, unauthenticated)
    assert content(ROCKET_CHAT, errors.NotFound()) == (404, {"success": False, "error": "Session not found"})
    status, refused = content(ROCKET_CHAT, errors.LoginRefused())
    assert (status, refused["status"], refused["message"]) == (401, "error", refused["error"])
    invalid = content(ROCKET_CHAT, errors.InvalidInput("sessionId", "is required"))
    assert invalid == (
        400,
        {"success": False, "error": "sessionId: is required", "errorType": "invalid-params"},
    )
    assert content(ROCKET_CHAT, errors.InUse())[1]["errorType"] == "session-in-use"


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("/session", SESSIONS),
        ("/session/login", SESSIONS),
        ("/api/session/user/details", SESSIONS),
        ("/sessions", SESSIONS),
        ("/sessions/abc", SESSIONS),
        ("/sessionsx", MODE),
        ("/api/v1/sessions/info", ROCKET_CHAT),
        ("/api/v1", ROCKET_CHAT),
        ("/api/v10/x", MODE),
        ("/api", MODE),
        ("/userSession", MODE),
        ("/homes/1", MODE),
        ("/", MODE),
    ],
)
def test_path_without_an_operation_has_the_shape_of_its_family(path: str, shape: ErrorShape) -> None:
    assert of_path(path) is shape


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_operation_has_the_shape_of_its_path(endpoint: Any) -> None:
    """Or an unknown method of that path would be answered in another one."""
    assert endpoint.shape is of_path(endpoint.path)


def test_operation_decides() -> None:
    request = make_mocked_request("GET", "/homes/1")
    request[SHAPE] = ROCKET_CHAT
    assert rendered(request, errors.InvalidInput("x", "y")).status == 400
