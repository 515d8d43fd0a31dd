"""Who is calling: from a key in the request to a principal."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from aiohttp import web

from homewire.errors import Unauthenticated
from homewire.gateway.expiring import MarkedCache
from homewire.gateway.freshness import Freshness
from homewire.model import Principal
from homewire.store import Store
from homewire.store.tokens import parse

SCHEMES: Final = frozenset({"modecloud", "bearer"})
"""Clients send ``ModeCloud <key>``, ``Bearer <key>``, or the key alone."""


class Authenticator:
    """Looks keys up in the store and remembers who they speak for, by the key's hash.

    A key that was ended is refused from the moment on that this node's tail has read so: some
    milliseconds after the change was answered, and a second if Redis falls silent.
    """

    def __init__(self, store: Store, freshness: Freshness, capacity: int) -> None:
        self._store = store
        self._principals: MarkedCache[str, Principal] = MarkedCache(freshness, capacity)

    async def __call__(self, request: web.Request) -> Principal:
        """The principal of the Authorization header. Raises Unauthenticated."""
        return await self.principal(Credential(request.headers.get("Authorization")))

    async def principal(self, credential: Credential, as_of: int | None = None) -> Principal:
        """The principal that a credential speaks for now. Raises Unauthenticated.

        `as_of` is for handshakes: see `MarkedCache.get`.
        """
        reference = credential.reference
        if reference is None:
            raise Unauthenticated
        principal = self._principals.get(reference.hash, as_of)
        if principal is None or _expired(principal):
            look_up = partial(self._store.principals.lookup, credential.token)
            principal = await self._principals.read_unplaced(reference.hash, look_up, _principal_id)
            if principal is None:
                raise Unauthenticated
        return principal


class Credential:
    """The key of one request: parsed and hashed once, asked about as often as needed."""

    __slots__ = ("reference", "token")

    def __init__(self, header: str | None) -> None:
        """`header` is the value of Authorization, or a bare key; None when there is none."""
        scheme, _, key = (header or "").strip().partition(" ")
        self.token = key.strip() if scheme.lower() in SCHEMES else (header or "").strip()
        self.reference = parse(self.token)

    @classmethod
    def of_websocket(cls, request: web.Request) -> Credential:
        """Where a client may be unable to set headers, the query's ``authToken`` counts when there is
        no Authorization header (spec 000, *Listen to events*)."""
        header = request.headers.get("Authorization")
        return cls(request.query.get("authToken") if header is None else header)

    def __repr__(self) -> str:
        return "Credential(…)"


def _expired(principal: Principal) -> bool:
    # No record announces that a key's time is over.
    return 0 < principal.expires_ms <= time.time_ns() // 1_000_000


def _principal_id(principal: Principal) -> int:
    return principal.id
