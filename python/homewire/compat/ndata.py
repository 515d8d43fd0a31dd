"""Sessions with NData (spec 003): `/sessions`, a view of the sessions of all logins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import msgspec

from homewire.auth.models import Principal, PrincipalKind
from homewire.compat.ndata_list import Names, Selection, unnamed
from homewire.compat.ndata_query import OPERATORS, NDataSession, Part, QueryResult, parse, session_of
from homewire.compat.user_agents import load_patterns
from homewire.errors import NotFound, PermissionDenied
from homewire.projects.models import KeyScope
from homewire.rest.context import RestContext
from homewire.rest.operation import Access, Call, Chunks, NoQuery, Operation
from homewire.rest.shapes import SESSIONS
from homewire.sessions.models import Session


class SessionsQuery(Part, kw_only=True):
    """All that may be asked, for the document; what it means is in `ndata_query`, which has the names in any
    case, and repeated ones."""

    sort: str | None = msgspec.field(default=None, name="$sort")
    session_id: str | None = msgspec.field(default=None, name="sessionId")
    user_name: str | None = msgspec.field(default=None, name="identity.userName")
    device_name: str | None = msgspec.field(default=None, name="identity.deviceName")
    env_name: str | None = msgspec.field(default=None, name="identity.envName")
    authentication_type: str | None = msgspec.field(default=None, name="identity.authenticationType")
    started_at: str | None = msgspec.field(default=None, name="startedAt")
    expires_at: str | None = msgspec.field(default=None, name="expiresAt")
    last_access_at: str | None = msgspec.field(default=None, name="lastAccessAt")
    version: str | None = msgspec.field(default=None, name="_v")


async def get_sessions(context: RestContext, call: Call[SessionsQuery, None]) -> Chunks:
    """The live sessions that the caller may see and the query selects."""
    query = parse(call.request.query.items())
    pages = _visible(context, call.principal)
    slot = partial(context.sort_slots.taken, call.project_id)
    selection = Selection(pages, Names(context, call.project_id), query, slot)
    return Chunks(selection.result(), whole_s=context.settings.sorted_list_s if selection.in_file else None)


async def get_session(context: RestContext, call: Call[NoQuery, None]) -> NDataSession:
    """A live session that the caller may see."""
    return await _shown(context, await _session_in_path(context, call))


async def delete_session(context: RestContext, call: Call[NoQuery, None]) -> NDataSession:
    """End a session: its key is invalid, and its connections are closed."""
    session = await _session_in_path(context, call)
    await context.store.sessions.end(session.project_id, session.id)
    ended = await context.store.sessions.get(session.project_id, session.id)
    if ended is None:
        raise NotFound
    return await _shown(context, ended)


async def _visible(context: RestContext, caller: Principal) -> AsyncIterator[list[Session]]:
    """Pages of the sessions that the caller may see, from the oldest on."""
    sessions = context.store.sessions
    if caller.kind is PrincipalKind.PROJECT_KEY:
        async for page in sessions.pages(caller.project_id):
            yield page
        return
    _require_session(caller)
    if caller.kind is PrincipalKind.USER:
        own = await sessions.of_user(caller.project_id, caller.id)
    else:
        own = await sessions.of_device(caller.project_id, caller.id)
    yield sorted(own, key=lambda session: (session.started_ms, session.id))


async def _session_in_path(context: RestContext, call: Call[NoQuery, None]) -> Session:
    caller = call.principal
    if caller.kind is not PrincipalKind.PROJECT_KEY:
        _require_session(caller)
    session = await context.store.sessions.get(caller.project_id, call.text("sessionId"))
    if session is None or not context.store.sessions.is_live(session) or not _may_see(caller, session):
        raise NotFound
    return session


def _require_session(caller: Principal) -> None:
    """Raises PermissionDenied for the key of a device that did not log in."""
    if not caller.session_id:
        raise PermissionDenied(needs="the key of a session, or a project key")


def _may_see(caller: Principal, session: Session) -> bool:
    match caller.kind:
        case PrincipalKind.PROJECT_KEY:
            return True
        case PrincipalKind.USER:
            return session.user_id == caller.id
        case PrincipalKind.DEVICE:
            return session.device_id == caller.id


async def _shown(context: RestContext, session: Session) -> NDataSession:
    await load_patterns()
    (found,) = await Names(context, session.project_id)([unnamed(session)])
    return session_of(found.row)


_NDATA: Final = f"""\
A parameter is the name of a member with conditions: `identity.userName=startswith:9`, `_v=gt:1;lt:50`, \
`startedAt=gte:2023-08-04T11:19:38Z`. Conditions are separated by `;`, and all of them must hold. A repeated \
parameter adds conditions. A value without an operator must be equal. The operators are \
{", ".join(OPERATORS)}; `in` and `nin` take several arguments, separated by `:`. Escape `:`, `;` and `\\` in \
a text with `\\`, but not in times. Names of members and operators may be in any case. Texts are compared \
exactly, and times as instants, in UTC if they have no offset.

`$sort` is a comma list of members. A member with `-` before it or `:desc` after it is sorted in descending \
order. Without `$sort` the sessions are in the order of their start.

A user sees the user's own sessions, a device that logged in its own, a project key all of the project. An \
answer that ends early is incomplete."""

OPERATIONS: Final = (
    Operation(
        name="getSessions",
        method="GET",
        path="/sessions",
        tag="Sessions with NData",
        summary="List live sessions; without $take all of them",
        description=_NDATA,
        source="spec 003, Get sessions",
        access=Access(user=True, device=True, scope=KeyScope.READ),
        handler=get_sessions,
        query=SessionsQuery,
        answer=QueryResult,
        shape=SESSIONS,
        errors=frozenset({400, 401, 403}),
    ),
    Operation(
        name="getSession",
        method="GET",
        path="/sessions/{sessionId}",
        tag="Sessions with NData",
        summary="Get a live session",
        source="spec 003, Get session",
        access=Access(user=True, device=True, scope=KeyScope.READ),
        handler=get_session,
        answer=NDataSession,
        shape=SESSIONS,
        errors=frozenset({400, 401, 403, 404}),
    ),
    Operation(
        name="deleteSession",
        method="DELETE",
        path="/sessions/{sessionId}",
        tag="Sessions with NData",
        summary="End a session; the answer is the ended session",
        source="spec 003, Delete session",
        access=Access(user=True, device=True, scope=KeyScope.ADMIN),
        handler=delete_session,
        answer=NDataSession,
        shape=SESSIONS,
        errors=frozenset({400, 401, 403, 404, 409}),
    ),
)
