"""Who is calling: from a key in the request to a principal.

Who calls, and what is where: what handlers are given to ask, without knowing who answers.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Container, Sequence
from functools import partial
from typing import Final, Protocol, TypeAlias

from aiohttp import hdrs, web

from homewire.auth.cache import CacheVersions, VersionedCache
from homewire.auth.models import Principal, PrincipalKind
from homewire.auth.tokens import parse
from homewire.devices.models import DeviceLocation
from homewire.errors import RequestError, Unauthenticated
from homewire.projects.models import Project
from homewire.repositories import Store
from homewire.server.answers import AUTH_KEY, USER_ID
from homewire.server.browser import DEAD_COOKIES, counted_names, refuse_cross_site, session_cookies

SCHEMES: Final = frozenset({"modecloud", "bearer"})
"""Clients send ``ModeCloud <key>``, ``Bearer <key>``, or the key alone."""
SAFE_METHODS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
"""They change nothing, so that a page of another origin wins nothing by them."""
MOST_COOKIES: Final = 2
"""Different cookies of a session of one request that are looked up, to expire them."""
Used: TypeAlias = Callable[[Principal, str], None]
"""Called with who uses a session, and the SHA-256 of the key."""


class Authenticator:
    """Looks keys up in the store and remembers who they speak for, by the key's hash.

    A key that was ended through this node is refused from the answer on. If another node ended it, from the
    moment on that this one's tail has read so: some milliseconds later, and a second if Redis falls silent.
    """

    def __init__(
        self,
        store: Store,
        freshness: CacheVersions,
        capacity: int,
        cookie_origins: Container[str] = (),
        used: Used | None = None,
    ) -> None:
        """`cookie_origins`: whose pages may act with a session's cookie, besides the service's own. `used`
        is told of each request whose key is a session."""
        self._store = store
        self._cookie_origins = cookie_origins
        self._used = used
        self._principals: VersionedCache[str, Principal] = VersionedCache(freshness, capacity)

    async def __call__(self, request: web.Request) -> Principal:
        """Who a request speaks for. Raises Unauthenticated, PermissionDenied (CROSS_SITE)."""
        credential = Credential.of(request)
        if credential.by_cookie and request.method not in SAFE_METHODS:
            refuse_cross_site(request, self._cookie_origins)
        if not credential.cookies:
            return await self.principal(credential)
        try:
            return await self.principal(credential)
        finally:
            await self.note_dead_cookies(request, credential)

    def for_websocket(self, request: web.Request) -> Credential:
        """The credential of a handshake; it counts as a change. Raises PermissionDenied (CROSS_SITE).

        What a page of another origin opened with somebody's cookie, it could read.
        """
        credential = Credential.of(request, websocket=True)
        if credential.by_cookie:
            refuse_cross_site(request, self._cookie_origins)
        return credential

    async def note_dead_cookies(self, request: web.Request, credential: Credential) -> None:
        """Have the answer expire the cookies of the request, if they are the keys of no session.

        A browser would send them with each request, and no script of its page can take them away.
        """
        values = set(credential.cookies)
        if not values or len(values) > MOST_COOKIES:
            return
        try:
            if not any([await self._is_valid(value) for value in values]):
                request[DEAD_COOKIES] = counted_names(request)
        except RequestError:
            # Not known now. The next answer tells.
            return

    async def _is_valid(self, key: str) -> bool:
        try:
            await self.principal(Credential(key, by_cookie=True), used=False)
        except Unauthenticated:
            return False
        return True

    async def principal(
        self, credential: Credential, at_version: int | None = None, *, used: bool = True
    ) -> Principal:
        """The principal that a credential speaks for now. Raises Unauthenticated.

        `at_version`: for handshakes, see `VersionedCache.get`. `used`: whether that is a use of its session.
        """
        reference = credential.reference
        if reference is None:
            raise Unauthenticated
        principal = self._principals.get(reference.hash, at_version)
        if principal is None or _expired(principal):
            look_up = partial(self._store.principals.lookup, credential.token)
            principal = await self._principals.read_unplaced(reference.hash, look_up, _principal_id)
            if principal is None:
                raise Unauthenticated
        if credential.user_id is not None and not _is_user(principal, credential.user_id):
            raise Unauthenticated
        if used and self._used is not None and principal.session_id:
            self._used(principal, reference.hash)
        return principal


class Credential:
    """The key of one request: parsed and hashed once, asked about as often as needed."""

    __slots__ = ("by_cookie", "cookies", "reference", "token", "user_id")

    def __init__(
        self,
        header: str | None,
        *,
        user_id: str | None = None,
        by_cookie: bool = False,
        cookies: Sequence[str] = (),
    ) -> None:
        """`header` is the value of Authorization, or a bare key; None when there is none."""
        self.token = _key(header or "")
        self.reference = parse(self.token)
        self.user_id = user_id
        """Whose key it has to be; None: anybody's."""
        self.by_cookie = by_cookie
        """Whether only a cookie names the key: a browser adds that by itself."""
        self.cookies = cookies
        """The values of all cookies of a session that came along, whether they count or not."""

    @classmethod
    def of(cls, request: web.Request, *, websocket: bool = False) -> Credential:
        """What a request names as its key: in Authorization, in X-Auth-Token (then X-User-Id says whose it
        is), in the cookie of a session. All headers have to name the same key. Where one names a key, no
        cookie counts: a browser adds those by itself, also that of a session that is long over. A cookie
        that somebody planted then decides nothing either.

        Where a client may be unable to set headers, on a WebSocket, the query's ``authToken`` counts when
        there is no Authorization header (spec 000, *Listen to events*).
        """
        headers = request.headers
        # All of each: whoever stands before us may have looked at another one than the first.
        given = headers.getall(hdrs.AUTHORIZATION, [])
        if not given and websocket:
            given = request.query.getall("authToken", [])
        tokens = headers.getall(AUTH_KEY, [])
        if len(given) < 2 and not tokens and hdrs.COOKIE not in headers:
            return cls(given[0] if given else None)
        named = {*map(_key, given), *(each.strip() for each in tokens)}
        cookies = session_cookies(request)
        keys = named or set(cookies)
        if len(keys) != 1:
            return cls(None, cookies=cookies)
        user_id = _user_id(request) if tokens else None
        (key,) = keys
        return cls(key, user_id=user_id, by_cookie=not named, cookies=cookies)

    def __repr__(self) -> str:
        return "Credential(…)"


def _key(header: str) -> str:
    """The key of an Authorization header, whatever its scheme."""
    scheme, _, key = header.strip().partition(" ")
    return key.strip() if scheme.lower() in SCHEMES else header.strip()


def _user_id(request: web.Request) -> str:
    """Who X-User-Id says it is; nobody's id, if nobody or several."""
    said = {each.strip() for each in request.headers.getall(USER_ID, [])}
    return said.pop() if len(said) == 1 else ""


def _is_user(principal: Principal, user_id: str) -> bool:
    return principal.kind is PrincipalKind.USER and user_id == str(principal.id)


def _expired(principal: Principal) -> bool:
    # No record announces that a key's time is over, nor that it has slid: then it is looked up again.
    return 0 < principal.expires_ms <= time.time_ns() // 1_000_000


def _principal_id(principal: Principal) -> int:
    return principal.id


Authenticate = Callable[[web.Request], Awaitable[Principal]]
"""Who a request speaks for, by its key. Raises Unauthenticated, and PermissionDenied for a page of another
origin that acts with the cookie of a session."""


class HomeDirectory(Protocol):
    """Where homes and devices are: the gateway's cached view of the store.

    An answer may be older than a change that another node answered already, by as much as this node's tail
    is behind: what comes in during these milliseconds is taken as from before the change.

    Each method may raise `errors.Unavailable`. Ids of other projects are unknown ids.
    """

    async def project(self, project_id: int) -> Project | None:
        """The project, unless it was deleted."""
        ...

    async def locate(self, project_id: int, device_ids: Collection[int]) -> dict[int, DeviceLocation]:
        """The devices of the project among `device_ids`; unknown ids are missing."""
        ...

    async def locate_now(self, project_id: int, device_ids: Collection[int]) -> dict[int, DeviceLocation]:
        """The same as the store has it now."""
        ...

    async def existing_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """The homes of the project among `home_ids`."""
        ...

    async def active_homes(self, project_id: int, home_ids: Collection[int]) -> set[int]:
        """Those that are not deactivated."""
        ...

    async def entity_homes(self, project_id: int, entity_ids: Collection[str]) -> dict[str, int]:
        """The home that each of `entity_ids` is bound to; those that are bound to none are missing. As
        the store has it now."""
        ...

    async def member_of(self, project_id: int, user_id: int, home_ids: Collection[int]) -> set[int]:
        """Those of `home_ids` that the user may act in."""
        ...

    async def rights_of(self, project_id: int, user_id: int, wanted: Collection[str]) -> set[str]:
        """Those of these rights (`model.Permission`, as texts) that the user has."""
        ...
