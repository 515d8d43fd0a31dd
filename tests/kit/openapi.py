"""What a node serves according to its table of operations: the document, and the texts of refusals."""

from __future__ import annotations

from typing import Any

import orjson

from homewire.errors import InternalError, MethodNotAllowed
from homewire.openapi.document import UNDOCUMENTED as UNDOCUMENTED
from homewire.openapi.document import document as document_of
from homewire.openapi.document import operations_of as operations_of
from homewire.operations import ENDPOINTS as ENDPOINTS
from homewire.rest.operation import Endpoint as Endpoint
from homewire.rest.shapes import of_path


def document() -> Any:
    """What is at /openapi.json, without a node."""
    return orjson.loads(orjson.dumps(document_of(ENDPOINTS)))


def text_of_wrong_method(path: str, allowed: str) -> str | None:
    """The body of a 405."""
    return of_path(path).answer(MethodNotAllowed(allowed)).text


def text_of_broken_handler(endpoint: Endpoint) -> str | None:
    """The body of the 500 of an operation, in the shape of its API."""
    return endpoint.shape.answer(InternalError()).text
