"""Who is calling: from a key in the request to a principal."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from homewire.errors import Unauthenticated
from homewire.gateway.expiring import ExpiringCache
from homewire.model import Principal
from homewire.store import Store
from homewire.store.tokens import parse

SCHEMES: Final = frozenset({"modecloud", "bearer"})
"""Clients send ``ModeCloud <key>``, ``Bearer <key>``, or the key alone."""

CACHE_SECONDS: Final = 1.0
"""A revoked key must be deaf within a second; until revocations are heard in-band, a
remembered principal may be no older than that."""


class Authenticator:
    """Looks keys up in the store and remembers the answer for a second, by the key's hash."""

    def __init__(self, store: Store, capacity: int) -> None:
        self._store = store
        self._principals: ExpiringCache[str, Principal] = ExpiringCache(CACHE_SECONDS, capacity)

    async def __call__(self, request: web.Request) -> Principal:
        """The principal of the Authorization header. Raises Unauthenticated."""
        return await self.principal(Credential(request.headers.get("Authorization")))

    async def principal(self, credential: Credential) -> Principal:
        """The principal that a credential speaks for now. Raises Unauthenticated."""
        reference = credential.reference
        if reference is None:
            raise Unauthenticated
        principal = self._principals.get(reference.hash)
        if principal is None:
            principal = await self._store.principals.lookup(credential.token)
            if principal is None:
                raise Unauthenticated
            self._principals.put(reference.hash, principal)
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
