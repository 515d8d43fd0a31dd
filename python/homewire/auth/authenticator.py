"""Authentication: from the key of a request to its principal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Sequence
from functools import partial
from typing import Final, TypeAlias

from aiohttp import hdrs, web

from homewire.auth.cache import CacheVersions, VersionedCache
from homewire.auth.models import Principal, PrincipalKind
from homewire.auth.tokens import parse
from homewire.errors import RequestError, Unauthenticated
from homewire.repositories import Store
from homewire.server.answers import AUTH_KEY, USER_ID
from homewire.server.browser import DEAD_COOKIES, counted_names, refuse_cross_site, session_cookies

SCHEMES: Final = frozenset({"modecloud", "bearer"})
"""Clients send ``ModeCloud <key>``, ``Bearer <key>``, or the key alone."""
SAFE_METHODS: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
"""They change nothing, so a page of another origin gains nothing by them."""
MAX_COOKIES: Final = 2
"""Maximum number of different session cookies of a request that are looked up, to expire them."""
UseCallback: TypeAlias = Callable[[Principal, str], None]
"""Called with the principal that uses a session, and the SHA-256 of its key."""


class Authenticator:
    """Looks keys up in the store, and caches their principals by the key's hash.

    A key that this node ended is refused from the answer on. A key that another node ended is refused when
    the tail has read the record: some milliseconds later, and after a second without an answer of Redis.
    """

    def __init__(
        self,
        store: Store,
        cache_versions: CacheVersions,
        capacity: int,
        cookie_origins: Container[str] = (),
        used: UseCallback | None = None,
    ) -> None:
        """`cookie_origins`: origins whose pages may use a session's cookie, besides the service's own. `used`
        is called for each request with the key of a session."""
        self._store = store
        self._cookie_origins = cookie_origins
        self._used = used
        self._now_ms = store.now_ms
        self._principals: VersionedCache[str, Principal] = VersionedCache(
            cache_versions, capacity, clock=store.clock
        )

    async def __call__(self, request: web.Request) -> Principal:
        """The principal of a request. Raises Unauthenticated, PermissionDenied (CROSS_SITE)."""
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
        """The credential of a handshake. Raises PermissionDenied (CROSS_SITE).

        A handshake is treated like a change: a page of another origin could read the events of its WebSocket.
        """
        credential = Credential.of(request, websocket=True)
        if credential.by_cookie:
            refuse_cross_site(request, self._cookie_origins)
        return credential

    async def note_dead_cookies(self, request: web.Request, credential: Credential) -> None:
        """Let the answer expire the session cookies of the request, if none of them is a valid key.

        A browser would send them with each request, and no script of the page can remove them.
        """
        values = set(credential.cookies)
        if not values or len(values) > MAX_COOKIES:
            return
        try:
            if not any([await self._is_valid(value) for value in values]):
                request[DEAD_COOKIES] = counted_names(request)
        except RequestError:
            # It is unknown now whether they are valid: the next answer may expire them.
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
        """The present principal of a credential. Raises Unauthenticated.

        `at_version`: for handshakes, see `VersionedCache.get`. `used`: whether that is a use of its session.
        """
        reference = credential.reference
        if reference is None:
            raise Unauthenticated
        principal = self._principals.get(reference.hash, at_version)
        if principal is None or self._is_expired(principal):
            look_up = partial(self._store.principals.lookup, credential.token)
            principal = await self._principals.read_unplaced(reference.hash, look_up, _shard_ids)
            if principal is None:
                raise Unauthenticated
        if credential.user_id is not None and not _is_user(principal, credential.user_id):
            raise Unauthenticated
        if used and self._used is not None and principal.session_id:
            self._used(principal, reference.hash)
        return principal

    def _is_expired(self, principal: Principal) -> bool:
        # No control record tells that a key has expired or was extended: look it up again.
        return 0 < principal.expires_ms <= self._now_ms()


class Credential:
    """The key of one request, parsed and hashed once."""

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
        """The user that the key must belong to; None: any principal."""
        self.by_cookie = by_cookie
        """Whether only a cookie has the key: browsers add cookies by themselves."""
        self.cookies = cookies
        """The values of all session cookies of the request, used or not."""

    @classmethod
    def of(cls, request: web.Request, *, websocket: bool = False) -> Credential:
        """The key of a request: in Authorization, in X-Auth-Token with the user's id in X-User-Id, or in the
        cookie of a session. All headers must have the same key. With a key in a header, cookies are ignored:
        a browser adds them by itself, also those of sessions that are over, and an attacker may set one.

        A WebSocket client may be unable to set headers: there the query's ``authToken`` counts if there is no
        Authorization header (spec 000, *Listen to events*).
        """
        headers = request.headers
        # All values of a header: a proxy may have checked another one than the first.
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
    """The key of an Authorization header, with any scheme."""
    scheme, _, key = header.strip().partition(" ")
    return key.strip() if scheme.lower() in SCHEMES else header.strip()


def _user_id(request: web.Request) -> str:
    """The value of X-User-Id; empty if it is missing or ambiguous."""
    values = {each.strip() for each in request.headers.getall(USER_ID, [])}
    return values.pop() if len(values) == 1 else ""


def _is_user(principal: Principal, user_id: str) -> bool:
    return principal.kind is PrincipalKind.USER and user_id == str(principal.id)


def _shard_ids(principal: Principal) -> tuple[int, int]:
    return principal.id, principal.id


Authenticate = Callable[[web.Request], Awaitable[Principal]]
"""Returns the principal of a request. Raises Unauthenticated, and PermissionDenied for a page of another
origin that uses the cookie of a session."""
