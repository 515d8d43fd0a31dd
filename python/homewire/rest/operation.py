"""An operation of the REST service: one row of the table that routes, validates and documents."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from aiohttp import web

from homewire.auth.actions import RULES, Action, Keys, Noun
from homewire.auth.models import Principal
from homewire.errors import NotFound
from homewire.rest.context import RestContext
from homewire.rest.shapes import MODE, ErrorShape

QueryT = TypeVar("QueryT")
BodyT = TypeVar("BodyT")

JSON_BYTES: Final = 80 * 1024
"""The largest body: 64 KiB of an application's data, and room for the rest of the object."""

SWITCHING_PROTOCOLS: Final = 101

TEXTS: Final = frozenset({"moduleId", "entityId", "key", "sessionId"})
"""Parts of paths that are no integer ids."""

_PART: Final = re.compile(r"\{(\w++)\}")


class BodyKind(StrEnum):
    """The format of a body."""

    JSON = "json"
    FORM = "form"
    """The spec's *web form*: urlencoded, multipart or JSON, as clients like it."""
    BATCH = "batch"
    """Many objects: a JSON array, or one to a line."""


@dataclass(frozen=True, slots=True)
class Access(Keys):
    """The keys that an operation takes."""

    any_project_key: bool = False
    """Whether a project key without that scope is accepted, too."""
    anonymous: bool = False
    """Whether no key is needed. An invalid key is refused all the same."""
    by_handler: bool = False
    """The handler checks the key itself, because the request decides which key it needs. The other members
    only document the keys that it may take."""

    @classmethod
    def of(cls, action: Action) -> Access:
        """The keys that an action takes (`Rule.keys`), for the document."""
        keys = RULES[action].keys or Keys()
        return cls(user=keys.user, device=keys.device, scope=keys.scope)


Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Of elements. Two of them together are still a number that Redis takes."""


class NoQuery(msgspec.Struct):
    """The query of an operation without parameters."""


class Paging(msgspec.Struct, kw_only=True, rename="camel"):
    """The part of a list; by default the whole list."""

    skip: Count = 0
    limit: Count | None = None


@dataclass(frozen=True, slots=True)
class WithCookie:
    """An answer that also sets or expires the session cookie."""

    answer: Any
    key: str | None
    """The key of the new session. None: expire the cookie."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """A long answer of JSON that is made in steps.

    Between two steps requests of others are served: each step is a turn of its own (`RequestTurns`). A step
    that has nothing to send yields an empty chunk. What raises before the first byte is answered like any
    other error.
    """

    steps: AsyncGenerator[bytes]
    headers: Mapping[str, str] | None = None
    whole_s: float | None = None
    """The time in which the client must take the answer; None: as long as the pace allows."""


class Call(msgspec.Struct, Generic[QueryT, BodyT], frozen=True):
    """One call of an operation: the caller and the checked input."""

    request: web.Request
    caller: Principal | None
    ids: Mapping[str, int]
    """The integer ids of the path, by their names in it."""
    query: QueryT
    body: BodyT

    @property
    def principal(self) -> Principal:
        """The caller of an operation that needs a key."""
        if self.caller is None:
            raise RuntimeError("an operation without a key has no principal")
        return self.caller

    @property
    def project_id(self) -> int:
        """The project of the key."""
        return self.principal.project_id

    def text(self, name: str) -> str:
        """A part of the path that is no integer id."""
        return self.request.match_info[name]


Handler = Callable[[RestContext, Call[Any, Any]], Awaitable[Any]]

ID_OF: Final = {
    Noun.HOME: "homeId",
    Noun.DEVICE: "deviceId",
    Noun.USER: "userId",
    Noun.PROJECT: "projectId",
}
"""The name of the id in a path, by the kind of resource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One operation of the API, with its keys, input and answers: a row of the document at /openapi.json."""

    name: str
    """operationId, in camel case."""
    method: str
    path: str
    tag: str
    summary: str
    description: str = ""
    """Further documentation for clients. Plain text, paragraphs are separated by an empty line."""
    source: str
    """The document and heading that it is from."""
    access: Access
    query: type[Any] = NoQuery
    body: Any = None
    body_kind: BodyKind = BodyKind.JSON
    body_required: bool = True
    """If not, a missing body is an empty object."""
    success: int = 200
    answer: Any = None
    """The type of the answer's body; None: it has none. `list[…]` for a `Part`."""
    errors: frozenset[int] = field(default=frozenset({401, 403, 404}))
    """The statuses of the specification; 429 if the operation has a limit of its own. 429, 500 and 503 are
    always possible."""
    shape: ErrorShape = MODE
    """The format of its errors."""
    located: str = ""
    """The member of the answer that, after this path, makes the path of the new resource."""
    sets_cookie: bool = False
    """Whether its answer sets or expires the session cookie (`WithCookie`). Then pages of other origins must
    not request it: they could log the user in or out."""
    message: Any = None
    """The type of the messages of a WebSocket."""
    idempotency_key: bool = False
    """Whether it accepts the header Idempotency-Key."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the variable parts of its path, in their order."""
        return tuple(_PART.findall(self.path))

    @property
    def websocket(self) -> bool:
        """Whether it opens a WebSocket."""
        return self.success == SWITCHING_PROTOCOLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Endpoint):
    """An endpoint that `rest.dispatch` serves.

    In this order: the key, its kind, the ids of the path, `action`, query, body, `handler`. The
    handler returns what is to be the body of the answer (of the type `answer`), None, a `Part`, `Chunks`, or
    one of these in a `WithCookie`.
    It may raise any `RequestError` or `StoreError`; `dispatch` gives it a status of `errors`.
    """

    handler: Handler
    action: Action | None = None
    """What the caller does with the resource that the path names. None: the handler checks what is to be
    checked."""
    body_bytes: int = JSON_BYTES

    def resource(self, ids: Mapping[str, int]) -> int:
        """The id of the resource of `action`, among those of the path."""
        if self.action is None:
            raise ValueError(f"{self.name} has no action")
        return ids[ID_OF[RULES[self.action].noun]]


def unknown(operation: Operation) -> NotFound:
    """What an id of the path gets that is no id. `dispatch` makes it a 403 where the table has no 404."""
    return NotFound(operation=operation.name)
