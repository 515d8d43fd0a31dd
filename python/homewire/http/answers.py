"""An answer that is made outside of any handler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from homewire.errors import RequestError


def json_answer(status: int, content: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON. With `Connection: close` among `headers` the connection ends with it."""
    response = web.Response(
        status=status, body=orjson.dumps(content), content_type="application/json", headers=headers
    )
    if headers and headers.get("Connection") == "close":
        response.force_close()
    return response


def error_answer(error: RequestError) -> web.Response:
    """An error as the MODE resources answer it: JSON ``{"reason", "data"}``."""
    return json_answer(error.status, {"reason": error.reason, "data": error.data}, error.headers)
