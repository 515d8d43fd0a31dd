"""The OpenAPI 3.1 document, made from the rows that route and validate.

In it is what belongs to the service's interface: every `Endpoint`. Not in it is what serves the node
itself (probes, these documents) and the pages that people get to by a mail (`UNDOCUMENTED`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, get_origin

import msgspec

from homewire import __version__
from homewire.openapi import realtime
from homewire.openapi.fields import described, example, parameter, samples
from homewire.rest.operation import TEXTS, Access, BodyKind, Endpoint
from homewire.rest.shapes import SHAPES, ErrorShape
from homewire.server.answers import AUTH_KEY, RANGE, USER_ID
from homewire.server.browser import HOST_SESSION_COOKIE, SESSION_COOKIE
from homewire.server.requests import LARGEST_ID
from homewire.webhooks.client import HEADER

UNDOCUMENTED: Final = frozenset(
    {"/", "/healthz", "/readyz", "/openapi.json", "/docs", "/verifyEmail", "/resetPassword"}
)
"""Paths of a node that are no part of the service's interface."""

JSON: Final = "application/json"
MEDIA_TYPES: Final = {
    BodyKind.JSON: (JSON,),
    BodyKind.FORM: ("application/x-www-form-urlencoded", "multipart/form-data", JSON),
    BodyKind.BATCH: (JSON,),
}
NDJSON: Final = "application/x-ndjson"
"""One JSON object a line. A schema describes it as a text."""

Part = dict[str, Any]
"""A part of the document."""

_SCHEMAS: Final = "#/components/schemas/{name}"

_ABOUT: Final = """\
homewire routes events between connected homes, devices and apps, and keeps their users, homes, devices and \
values.

Keys. Send the key in the header Authorization, as `ModeCloud <key>`, `Bearer <key>` or the key alone. A \
key belongs to a user, a device or the project; each operation names the keys that it takes. A project key \
with the scope `admin` may do what any other project key may. A user's key, which is a session, may also \
be sent in `X-Auth-Token` with the user's id in `X-User-Id`, or in the cookie `homewire_session` \
(`__Host-homewire_session` by https). Two headers with different keys are answered 401. On a WebSocket, \
Authorization wins over `authToken`. A cookie beside a key in a header or in `authToken` is ignored. Two \
different cookies without such a key are answered 401. An answer expires a cookie whose session is over. A \
request with the cookie alone that changes something, or opens a WebSocket, is answered 403 for a page of \
another origin.

Source. Most operations follow a document of another vendor, which `Source` names: spec 000 (*User \
Session*) and 001 (*Resources*) of the MODE cloud API, 002 (*Sessions Controller*), 003 (*Sessions*, with \
NData), 004 (Rocket.Chat's sessions), or the data models of their clients.

Paths. An id has one spelling (no leading zeros), and no path ends with a slash: anything else is 404. A \
plain request to the path of a WebSocket is 403, as spec 000 requires. Answers to GET of more than 1 KB \
are compressed for clients that accept gzip or deflate, unless the request has a cookie.

Errors. Every error is JSON. The session APIs have shapes and statuses of their own, which their \
operations describe. Elsewhere an error has `reason`, an upper-case code, and `data`, which says what to \
correct. The checks have an order: no key, or one that is not valid, 401 (403 where the operation has no \
401); a key of the wrong kind, or without the scope, 403; an id that is unknown or that the caller cannot \
see, 404 (403 where the operation has no 404); any other bad input 403, naming the field. A method that a \
path does not have is answered 405 with `Allow`. 429 and 503 say in `Retry-After` when to try again. After \
a 503 NOT_CONFIRMED the outcome of the change is unknown.

Bodies. Unknown members are ignored. A web form may be urlencoded, multipart or JSON. In the first two, \
numbers and booleans are text, and an empty field counts as missing. A GET may be a HEAD as well.
"""

_ANY_TIME: Final = frozenset({429, 500, 503})
_RETRY_LATER: Final = frozenset({429, 503})


def document(endpoints: Sequence[Endpoint]) -> Part:
    """The whole document. Raises KeyError for an error status that has no text here."""
    types = [each for endpoint in endpoints for each in (endpoint.body, endpoint.answer) if each is not None]
    types += realtime.RECEIVED
    shapes = [shape for shape in SHAPES if any(each.shape is shape for each in endpoints)]
    schemas, components = msgspec.json.schema_components(
        [*types, *(shape.schema for shape in shapes)], ref_template=_SCHEMAS
    )
    components = described(components)
    named = Types(dict(zip(map(repr, types), schemas, strict=False)), components)
    paths: Part = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, named)
    return {
        "openapi": "3.1.0",
        "info": {"title": "homewire", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
        "paths": paths,
        "webhooks": {"event": {"post": _webhook(named)}},
        "components": {
            "schemas": dict(sorted(components.items())),
            "responses": {
                shape.name + name: _error(shape, status)
                for shape in shapes
                for status, (name, _) in shape.texts.items()
            },
            "headers": _HEADERS,
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


_HEADERS: Final[Part] = {
    "Range": {
        "description": "The part of the list that this is: `<first>-<last>/<total>`, or `*/<total>`.",
        "required": True,
        "schema": {"type": "string", "pattern": r"^([0-9]+-[0-9]+|\*)/[0-9]+$"},
    },
    "Location": {
        "description": "The path of the new resource.",
        "required": True,
        "schema": {"type": "string", "pattern": "^/"},
    },
    "Challenge": {
        "description": "The scheme of the key in a request.",
        "required": True,
        "schema": {"type": "string", "pattern": "^Bearer "},
    },
    "RetryAfter": {
        "description": "Seconds after which to repeat the request.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "SessionCookie": {
        "description": f"The cookie {SESSION_COOKIE} (by https {HOST_SESSION_COOKIE}) with the key of the "
        "new session, or expired.",
        "required": True,
        "schema": {"type": "string", "pattern": f"^(__Host-)?{SESSION_COOKIE}="},
    },
    "Allow": {
        "description": "The methods that the path has.",
        "required": True,
        "schema": {"type": "string"},
    },
}


def _header_key(whose: str) -> Part:
    description = f"The key of {whose}: `ModeCloud <key>`, `Bearer <key>`, or the key alone."
    return {"type": "apiKey", "in": "header", "name": "Authorization", "description": description}


_SECURITY_SCHEMES: Final[Part] = {
    "userKey": _header_key("a user"),
    "deviceKey": _header_key("a device"),
    "projectKey": _header_key("a project, with the scope that the operation names"),
    "sessionCookie": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "The key of a session, as a login of the session APIs sets it for browsers.",
    },
    "sessionKey": {
        "type": "apiKey",
        "in": "header",
        "name": AUTH_KEY,
        "description": "The key of a user, alone; with the user's id in X-User-Id.",
    },
    "sessionUser": {
        "type": "apiKey",
        "in": "header",
        "name": USER_ID,
        "description": "The id of the user whose key is in X-Auth-Token.",
    },
    "authToken": {
        "type": "apiKey",
        "in": "query",
        "name": "authToken",
        "description": "On a WebSocket, the key of a user or device, where no header can be set.",
    },
}


@dataclass(frozen=True, slots=True)
class Types:
    """The schemas of bodies, by the types that they are made of, and what they refer to."""

    schemas: Part
    components: Part

    def content(self, kind: Any) -> Part:
        """A body of this type, with an example."""
        schema = self.schemas[repr(kind)]
        return {"schema": schema, "example": example(schema, self.components)}


def _webhook(named: Types) -> Part:
    """The request that a smart module of the type webhook receives."""
    headers = (
        ("X-Mode-Event-Id", "The id of the event, the same at each try.", "3.1764524589000-0"),
        (
            HEADER,
            "`t=<unix seconds>,v1=<hex>`: HMAC-SHA256, under the module's key, of"
            " `<t>.<event id>.<url>.<body>`. During the rotation of the key there are two v1.",
            f"t=1764524589,v1={'5e' * 32}",
        ),
        ("X-Mode-Signature", "Hex HMAC-SHA256 of URL and body. It covers neither time nor id.", "5e" * 32),
    )
    return {
        "operationId": "receiveEvent",
        "summary": "An event for a smart module of the type webhook",
        "description": "Answer 200 to accept the event; after any other answer the server sends it again. "
        "Refuse a signature with a time more than five minutes away, and an event id that you know.",
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": about,
                "schema": {"type": "string"},
                "example": value,
            }
            for name, about, value in headers
        ],
        "requestBody": {"required": True, "content": {JSON: named.content(realtime.ReceivedEvent)}},
        "responses": {"200": {"description": "The event was taken."}},
    }


def _operation(endpoint: Endpoint, named: Types) -> Part:
    made: Part = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "description": "\n\n".join(filter(None, [endpoint.description, f"Source: {endpoint.source}."])),
        "security": list(_security(endpoint)),
        "parameters": [*_path_parameters(endpoint), *_query_parameters(endpoint), *_headers(endpoint)],
        "responses": _responses(endpoint, named),
    }
    if endpoint.body is not None:
        made["requestBody"] = _body(endpoint, named)
    if endpoint.message is not None:
        made["x-messages"] = named.content(endpoint.message)
    made["x-codeSamples"] = list(samples(endpoint.method, endpoint.path, made))
    return made


def _security(endpoint: Endpoint) -> Iterator[Part]:
    access: Access = endpoint.access
    if access.anonymous:
        yield {}
    if access.user:
        yield {"userKey": []}
        yield {"sessionCookie": []}
        yield {"sessionKey": [], "sessionUser": []}
    if access.device:
        yield {"deviceKey": []}
    if access.scope is not None:
        yield {"projectKey": [] if access.any_project_key else [str(access.scope)]}
    if endpoint.websocket:
        yield {"authToken": []}


def _path_parameters(endpoint: Endpoint) -> Iterator[Part]:
    for name in endpoint.parts:
        number = {"type": "integer", "format": "int64", "minimum": 1, "maximum": LARGEST_ID}
        schema = {"type": "string", "minLength": 1} if name in TEXTS else number
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": schema,
            **parameter(endpoint.name, name),
        }


def _query_parameters(endpoint: Endpoint) -> Iterator[Part]:
    (reference,), components = msgspec.json.schema_components([endpoint.query], ref_template=_SCHEMAS)
    fields = components.pop(reference["$ref"].removeprefix(_SCHEMAS.format(name="")))
    for name, schema in fields["properties"].items():
        required = name in fields["required"]
        yield {
            "name": name,
            "in": "query",
            "required": required,
            "schema": _inlined(schema, components),
            **parameter(endpoint.name, name),
        }


def _headers(endpoint: Endpoint) -> Iterator[Part]:
    if endpoint.idempotency_key:
        yield {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "A retry with the same key and body is answered like the first, for ten minutes.",
            "example": "5b0c9d2e-open-1",
            "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
        }


def _inlined(schema: Part, components: Part) -> Part:
    """A parameter's schema without references and without null, which no query can say."""
    if "$ref" in schema:
        return dict(components[schema["$ref"].removeprefix(_SCHEMAS.format(name=""))])
    present = dict(schema)
    # Client generators quote quotes twice, and then send an invalid value.
    if (default := present.get("default", "")) is None or '"' in str(default):
        del present["default"]
    choices = present.pop("anyOf", None)
    if choices is None:
        return present
    kept = [_inlined(choice, components) for choice in choices if choice.get("type") != "null"]
    return {**kept[0], **present} if len(kept) == 1 else {"anyOf": kept, **present}


def _body(endpoint: Endpoint, named: Types) -> Part:
    content: Part = {media: named.content(endpoint.body) for media in MEDIA_TYPES[endpoint.body_kind]}
    if endpoint.body_kind is BodyKind.BATCH:
        lines = (msgspec.json.encode(each).decode() for each in content[JSON]["example"])
        content[NDJSON] = {"schema": {"type": "string"}, "example": "\n".join(lines)}
    return {"required": endpoint.body_required, "content": content}


def _responses(endpoint: Endpoint, named: Types) -> Part:
    success: Part = {"description": HTTPStatus(endpoint.success).phrase}
    if endpoint.answer is not None:
        success["content"] = {JSON: named.content(endpoint.answer)}
    if get_origin(endpoint.answer) is list:
        success["headers"] = {RANGE: {"$ref": "#/components/headers/Range"}}
    if endpoint.located:
        success["headers"] = {"Location": {"$ref": "#/components/headers/Location"}}
    if endpoint.sets_cookie:
        success["headers"] = {"Set-Cookie": {"$ref": "#/components/headers/SessionCookie"}}
    shape = endpoint.shape
    errors = {
        str(status): {"$ref": f"#/components/responses/{shape.name}{shape.texts[status][0]}"}
        for status in sorted(endpoint.errors | _ANY_TIME)
    }
    return {str(endpoint.success): success, **errors}


def _error(shape: ErrorShape, status: int) -> Part:
    schema = {"$ref": _SCHEMAS.format(name=shape.schema.__name__)}
    made: Part = {"description": shape.texts[status][1], "content": {JSON: {"schema": schema}}}
    if status in _RETRY_LATER:
        made["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
    if status == HTTPStatus.UNAUTHORIZED:
        made["headers"] = {"WWW-Authenticate": {"$ref": "#/components/headers/Challenge"}}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        made["headers"] = {"Allow": {"$ref": "#/components/headers/Allow"}}
    return made


def operations_of(made: Part) -> Iterator[tuple[str, str, Part]]:
    """Method, path and operation of a document, in its order."""
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation
