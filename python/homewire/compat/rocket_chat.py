"""Sessions as clients of Rocket.Chat know them (spec 004; data models, *Rocket.Chat sessions*).

`shown` is a pure function of a session's record (spec 004, *Example Result*).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec

from homewire.compat.controller_logins import resolve_project
from homewire.compat.user_agents import device_of, load_patterns
from homewire.errors import InvalidInput, NotFound, Unauthenticated, UnknownRecord
from homewire.logins.api import log_in_by_password
from homewire.rest.context import RestContext
from homewire.rest.models import Answer, Timestamp
from homewire.rest.operation import Access, BodyKind, Call, Count, NoQuery, Operation
from homewire.rest.shapes import ROCKET_CHAT
from homewire.sessions.models import Session
from homewire.timestamps import timestamp
from homewire.users.models import User

Direction = Literal[1, -1]

_BY_IMPORTANCE: Final = ("admin", "user")


class OperatingSystem(Answer):
    """The operating system of the client."""

    name: str
    version: str


class RocketChatDevice(Answer):
    """The client, by the User-Agent of the login. Unknown members are empty."""

    type: str
    name: str
    long_version: str
    os: OperatingSystem
    version: str


class RocketChatSession(Answer, kw_only=True):
    """A session."""

    id_: str = msgspec.field(name="_id")
    type: Literal["session"]
    session_id: str
    instance_id: str
    login_token: str
    ip: str
    host: str
    device: RocketChatDevice
    user_id: str
    roles: list[str]
    most_important_role: str
    login_at: Timestamp
    day: int
    month: int
    year: int
    search_term: str
    created_at: Timestamp
    updated_at: Timestamp = msgspec.field(name="_updatedAt")
    last_activity_at: Timestamp
    closed_at: Timestamp | None = None


class RocketChatSessionInfo(RocketChatSession, kw_only=True):
    """A session, as the whole answer."""

    success: Literal[True]


def shown(session: Session, now_ms: int) -> RocketChatSession:
    """A session at this time. An expired session is closed, since its expiry."""
    device = device_of(session.user_agent)
    began = datetime.fromtimestamp(session.started_ms // 1000, UTC)
    closed_ms = session.closed_ms or (session.expires_ms if session.expires_ms <= now_ms else 0)
    user_id = str(session.user_id)
    return RocketChatSession(
        id_=session.id,
        type="session",
        session_id=session.id,
        instance_id=session.node,
        login_token=base64.b64encode(bytes.fromhex(session.key_hash)).decode(),
        ip=session.address,
        host=session.host,
        device=RocketChatDevice(
            type=device.type,
            name=device.name,
            long_version=device.long_version,
            os=OperatingSystem(name=device.os_name, version=device.os_version),
            version=device.version,
        ),
        user_id=user_id,
        roles=list(session.roles),
        most_important_role=most_important(session.roles),
        login_at=timestamp(session.started_ms),
        day=began.day,
        month=began.month,
        year=began.year,
        search_term=device.name + device.type + device.os_name + session.id + user_id,
        created_at=timestamp(session.started_ms),
        updated_at=timestamp(max(session.last_access_ms, closed_ms)),
        last_activity_at=timestamp(session.last_access_ms),
        closed_at=timestamp(closed_ms) if closed_ms else None,
    )


def most_important(roles: Iterable[str]) -> str:
    """The role that permits most."""
    held = list(roles)
    return next((role for role in _BY_IMPORTANCE if role in held), held[0] if held else "")


_SORT_KEYS: Final[dict[str, Callable[[RocketChatSession], str]]] = {
    "loginAt": lambda each: each.login_at,
    "createdAt": lambda each: each.created_at,
    "lastActivityAt": lambda each: each.last_activity_at,
    "_updatedAt": lambda each: each.updated_at,
    "sessionId": lambda each: each.session_id,
    "ip": lambda each: each.ip,
    "host": lambda each: each.host,
    "device.type": lambda each: each.device.type,
    "device.name": lambda each: each.device.name,
    "device.version": lambda each: each.device.version,
    "device.os.name": lambda each: each.device.os.name,
    "device.os.version": lambda each: each.device.os.version,
}


def decode_sort(text: str) -> dict[str, Direction]:
    """The sort order of a client, like `{"loginAt": -1}`, the first key first. Raises InvalidInput."""
    try:
        order = msgspec.json.decode(text, type=dict[str, Direction])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise InvalidInput("sort", "must be a JSON object of members, each with 1 or -1") from None
    if order.keys() <= _SORT_KEYS.keys():
        return order
    raise InvalidInput("sort", f"must name members among {', '.join(_SORT_KEYS)}")


def selected(
    sessions: Iterable[RocketChatSession], text: str, order: dict[str, Direction]
) -> list[RocketChatSession]:
    """The sessions with the text in their search term, in any case, in this order, and then by their id."""
    wanted = text.casefold()
    found = sorted(
        (each for each in sessions if wanted in each.search_term.casefold()), key=_SORT_KEYS["sessionId"]
    )
    for member, direction in reversed(order.items()):
        found.sort(key=_SORT_KEYS[member], reverse=direction < 0)
    return found


APP_ID: Final = "rocket.chat"
"""The app of sessions that are opened here."""
MAX_TEXT: Final = 1024
"""Maximum length of a filter, a sort order and the id of a session, in characters."""
DEFAULT_COUNT: Final = 50
"""Default number of sessions in a list."""

SessionId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a login. The first of user, username and email counts."""

    user: str | None = None
    username: str | None = None
    email: str | None = None
    password: str


class SessionQuery(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which session."""

    session_id: SessionId


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Selection, order and part of the list of sessions."""

    offset: Count = 0
    count: Count = DEFAULT_COUNT
    """0: all."""
    filter: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] = ""
    sort: Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] = '{"loginAt":-1}'


class Address(Answer):
    """An e-mail address."""

    address: str
    verified: bool


class Me(Answer):
    """The user that logged in."""

    id_: str = msgspec.field(name="_id")
    name: str
    username: str
    emails: list[Address]
    roles: list[str]
    active: Literal[True]


class Opened(Answer):
    """A new session: what its client sends from now on, as X-User-Id and X-Auth-Token."""

    user_id: str
    auth_token: str
    me: Me


class LoginAnswer(Answer):
    """The answer to a login."""

    status: Literal["success"]
    data: Opened


class Message(Answer):
    """A text for the user."""

    message: str


class LogoutAnswer(Answer):
    """The answer to a logout."""

    status: Literal["success"]
    data: Message


class SessionList(Answer):
    """Some of the caller's live sessions."""

    sessions: list[RocketChatSession]
    count: int
    """Number of sessions in the answer."""
    offset: int
    total: int
    """Number of sessions that match the filter."""
    success: Literal[True]


class EndedAnswer(Answer):
    """A session was ended."""

    session_id: str
    success: Literal[True]


async def log_in(context: RestContext, call: Call[NoQuery, Login]) -> LoginAnswer:
    """Open a session."""
    name = call.body.user or call.body.username or call.body.email
    if not name:
        raise InvalidInput("user", "is required")
    project = await resolve_project(context, call.request)
    user, session, key = await log_in_by_password(
        context, call.request, project, name, call.body.password, app_id=APP_ID
    )
    opened = Opened(user_id=str(user.id), auth_token=key, me=_me(user, session))
    return LoginAnswer(status="success", data=opened)


def _me(user: User, session: Session) -> Me:
    emails = [Address(address=user.email, verified=user.verified)] if user.email else []
    return Me(
        id_=str(user.id),
        name=user.name,
        username=user.email or user.phone or user.external_key or str(user.id),
        emails=emails,
        roles=list(session.roles),
        active=True,
    )


async def log_out(context: RestContext, call: Call[NoQuery, None]) -> LogoutAnswer:
    """End the session of the key."""
    try:
        await context.store.sessions.end(call.project_id, call.principal.session_id)
    except UnknownRecord as error:
        # Another request ended it after the key was checked.
        raise Unauthenticated from error
    return LogoutAnswer(status="success", data=Message(message="You've been logged out!"))


async def session_info(context: RestContext, call: Call[SessionQuery, None]) -> RocketChatSessionInfo:
    """One session of the caller's, live or not."""
    await load_patterns()
    found = shown(await _own(context, call, call.query.session_id), context.store.now_ms())
    return RocketChatSessionInfo(**msgspec.structs.asdict(found), success=True)


async def list_sessions(context: RestContext, call: Call[ListQuery, None]) -> SessionList:
    """The caller's live sessions."""
    query, now = call.query, context.store.now_ms()
    order = decode_sort(query.sort)
    live = await context.store.sessions.of_user(call.project_id, call.principal.id)
    await load_patterns()
    found = selected([shown(session, now) for session in live], query.filter, order)
    end = query.offset + query.count if query.count else None
    part = found[query.offset : end]
    return SessionList(sessions=part, count=len(part), offset=query.offset, total=len(found), success=True)


async def log_out_one(context: RestContext, call: Call[NoQuery, SessionQuery]) -> EndedAnswer:
    """End one session of the caller's."""
    session = await _own(context, call, call.body.session_id)
    await context.store.sessions.end(session.project_id, session.id)
    return EndedAnswer(session_id=session.id, success=True)


async def _own(context: RestContext, call: Call[Any, Any], session_id: str) -> Session:
    session = await context.store.sessions.get(call.project_id, session_id)
    if session is None or session.user_id != call.principal.id:
        raise NotFound
    return session


_BAD_INPUT: Final = frozenset({400, 401, 403})
_USERS: Final = Access(user=True)

OPERATIONS: Final = (
    Operation(
        name="rocketChatLogin",
        method="POST",
        path="/api/v1/login",
        tag="Rocket.Chat sessions",
        summary="Log in with a password",
        description="The first of user, username and email is the e-mail address of the user. The project is "
        "that of the Host name (setting project_hosts), else the default_project, else the only one; without "
        "any of these the answer is 400. The project must have e-mail accounts. Later requests have userId "
        "and authToken in the headers X-User-Id and X-Auth-Token. The authToken is a key like any other.",
        source="data models, Rocket.Chat sessions",
        access=Access(anonymous=True, by_handler=True),
        handler=log_in,
        body=Login,
        body_kind=BodyKind.FORM,
        answer=LoginAnswer,
        errors=frozenset({400, 401, 429}),
        shape=ROCKET_CHAT,
    ),
    Operation(
        name="rocketChatLogout",
        method="POST",
        path="/api/v1/logout",
        tag="Rocket.Chat sessions",
        summary="End the session of the key",
        source="data models, Rocket.Chat sessions",
        access=_USERS,
        handler=log_out,
        answer=LogoutAnswer,
        errors=frozenset({401, 403, 409}),
        shape=ROCKET_CHAT,
    ),
    Operation(
        name="getRocketChatSession",
        method="GET",
        path="/api/v1/sessions/info",
        tag="Rocket.Chat sessions",
        summary="Get one of the caller's sessions",
        description="The session may come from any session API. A session that is over can be read for 30 "
        "days, and has closedAt. loginToken is the SHA-256 of the key, in base64.",
        source="spec 004, Get Current User Session Information",
        access=_USERS,
        handler=session_info,
        query=SessionQuery,
        answer=RocketChatSessionInfo,
        errors=_BAD_INPUT | {404},
        shape=ROCKET_CHAT,
    ),
    Operation(
        name="listRocketChatSessions",
        method="GET",
        path="/api/v1/sessions/list",
        tag="Rocket.Chat sessions",
        summary="List the caller's live sessions",
        description="The filter is a text that searchTerm contains, in any case. The sort order is a JSON "
        'object of members of a session, each with 1 or -1, e.g. {"device.name": 1, "loginAt": -1}. By '
        "default the newest login is first. With a count of 0 all sessions are listed.",
        source="data models, Rocket.Chat sessions",
        access=_USERS,
        handler=list_sessions,
        query=ListQuery,
        answer=SessionList,
        errors=_BAD_INPUT,
        shape=ROCKET_CHAT,
    ),
    Operation(
        name="endRocketChatSession",
        method="POST",
        path="/api/v1/sessions/logout.me",
        tag="Rocket.Chat sessions",
        summary="End one of the caller's sessions",
        source="data models, Rocket.Chat sessions",
        access=_USERS,
        handler=log_out_one,
        body=SessionQuery,
        body_kind=BodyKind.FORM,
        answer=EndedAnswer,
        errors=_BAD_INPUT | {404, 409},
        shape=ROCKET_CHAT,
    ),
)
