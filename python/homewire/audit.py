"""The audit trail: log lines of logins and of changes of who may do what, and counters for the metrics.

A line has the event `audit`, the operation's name, its outcome (`ok`, or the reason of the refusal), the
caller, the project, the client's address and the ids of the path. It has nothing of bodies, keys or e-mail
addresses. Values, commands and events are data, not access: they leave no line.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol, cast

import structlog
from aiohttp import hdrs, web

from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import RequestError
from homewire.log import Seldom
from homewire.rest.shapes import rendered
from homewire.server.clients import client_address

OK: Final = "ok"
LOGINS: Final = frozenset(
    {
        "authenticateUser",
        "rocketChatLogin",
        *(f"logIn{how}{where}" for how in ("", "WithToken", "Node") for where in ("", "AtApi")),
    }
)
"""Operations by which somebody proves who they are."""
DATA: Final = "Key-value store"
"""The tag of operations that change data, and nobody's access."""

TEXTS: Final = frozenset({"moduleId", "entityId"})
"""Parts of paths that are shown though they are no integer ids."""


class AuditedOperation(Protocol):
    """What the trail needs of an operation of the REST service."""

    @property
    def name(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def tag(self) -> str: ...

    @property
    def parts(self) -> tuple[str, ...]: ...


_OPERATION: Final = web.RequestKey("audited operation", object)
_NOTES: Final = web.RequestKey("audit notes", dict)
_log = structlog.get_logger("homewire.audit")


def note(request: web.Request, **facts: object) -> None:
    """Have the line of this request say this, too. Ids only."""
    request.setdefault(_NOTES, {}).update(facts)


def note_caller(request: web.Request, caller: Principal) -> None:
    """Whose key the request has."""
    # The name of a user's key is the app's.
    who = caller.name if caller.kind is PrincipalKind.PROJECT_KEY else caller.id
    note(request, caller=f"{caller.kind.value} {who}", project=caller.project_id)


class Audit:
    """The trail of one process. `logins` counts by outcome, `refusals` all refused requests by reason."""

    def __init__(self) -> None:
        self.logins: Counter[str] = Counter({OK: 0})
        self.refusals: Counter[str] = Counter()
        self._seldom = Seldom(1.0)

    def begins(self, request: web.Request, operation: AuditedOperation) -> None:
        """A request for an operation."""
        if operation.method != hdrs.METH_GET and operation.tag != DATA:
            request[_OPERATION] = operation

    def done(self, request: web.Request) -> None:
        """The request was answered as it wished."""
        operation = request.get(_OPERATION)
        if operation is not None:
            self._write(request, cast("AuditedOperation", operation), OK)

    def render(self, request: web.Request, error: RequestError) -> web.Response:
        """The answer to a request that ended in an error."""
        self.refusals[error.reason] += 1
        operation = request.get(_OPERATION)
        if operation is not None:
            limit = error.data.get("limit")
            # One line a second for each limit: a flood of attempts is one fact, and must not fill a disk.
            is_due = limit is None or self._seldom.may(str(limit))
            self._write(
                request, cast("AuditedOperation", operation), error.reason, limit=limit, is_due=is_due
            )
        return rendered(request, error)

    def _write(
        self,
        request: web.Request,
        operation: AuditedOperation,
        outcome: str,
        limit: str | None = None,
        is_due: bool = True,
    ) -> None:
        if operation.name in LOGINS:
            self.logins[outcome] += 1
        if is_due:
            facts: dict[str, object] = {
                "operation": operation.name,
                "outcome": outcome,
                "address": client_address(request),
                **_path(operation, request),
                **request.get(_NOTES, {}),
            }
            _log.info("audit", **facts, **({} if limit is None else {"limit": limit}))


def _path(operation: AuditedOperation, request: web.Request) -> dict[str, str]:
    # In the place of an id there may be a key, by mistake.
    texts = {name: request.match_info[name] for name in operation.parts}
    return {
        name: text for name, text in texts.items() if text.isdigit() or (name in TEXTS and len(text) < 65)
    }
