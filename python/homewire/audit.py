"""The audit trail: log lines of logins and of changes of access, and counters for the metrics.

A line has the event `audit`, the operation's name, its outcome (`ok`, or the reason of the refusal), the
caller, the project, the client's address and the ids of the path. It contains no bodies, keys or e-mail
addresses. Values, commands and events are data, not access: they are not logged.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol, cast

import structlog
from aiohttp import hdrs, web

from homewire.auth.models import Principal, PrincipalKind
from homewire.clock import MACHINE_CLOCK, Clock
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
"""Operations that log a user or device in."""
DATA: Final = "Key-value store"
"""The tag of operations that change data, and no access."""

TEXTS: Final = frozenset({"moduleId", "entityId"})
"""Parts of paths that are logged, though they are no integer ids."""


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
    """Add ids to the audit line of a request."""
    request.setdefault(_NOTES, {}).update(facts)


def note_caller(request: web.Request, caller: Principal) -> None:
    """Add the caller of a request to its audit line, if it has one."""
    if _OPERATION not in request:
        return
    # The name of a user's key is the app's.
    name = caller.name if caller.kind is PrincipalKind.PROJECT_KEY else caller.id
    note(request, caller=f"{caller.kind.value} {name}", project=caller.project_id)


class Audit:
    """The audit trail of one process. `logins` counts outcomes, `refusals` refused requests by reason."""

    def __init__(self, clock: Clock = MACHINE_CLOCK) -> None:
        self.logins: Counter[str] = Counter({OK: 0})
        self.refusals: Counter[str] = Counter()
        self._seldom = Seldom(1.0, clock)

    def begins(self, request: web.Request, operation: AuditedOperation) -> None:
        """A request for an operation begins."""
        if operation.method != hdrs.METH_GET and operation.tag != DATA:
            request[_OPERATION] = operation

    def done(self, request: web.Request) -> None:
        """The request succeeded."""
        operation = request.get(_OPERATION)
        if operation is not None:
            self._write(request, cast("AuditedOperation", operation), OK)

    def render(self, request: web.Request, error: RequestError) -> web.Response:
        """The answer to a request that ended in an error."""
        self.refusals[error.reason] += 1
        operation = request.get(_OPERATION)
        if operation is not None:
            limit = error.data.get("limit")
            # One line a second for each limit: a flood of attempts must not fill the disk.
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
    # A client may send a key in the place of an id, by mistake.
    texts = {name: request.match_info[name] for name in operation.parts}
    return {
        name: text for name, text in texts.items() if text.isdigit() or (name in TEXTS and len(text) < 65)
    }
