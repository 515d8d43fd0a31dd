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
        return await self._principal(request.headers.get("Authorization"))

    async def of_websocket(self, request: web.Request) -> Principal:
        """The same where a client may be unable to set headers: the query's ``authToken``
        counts when there is no Authorization header (spec 000, *Listen to events*).

        Raises Unauthenticated.
        """
        header = request.headers.get("Authorization")
        return await self._principal(request.query.get("authToken") if header is None else header)

    async def _principal(self, credential: str | None) -> Principal:
        reference = parse(_key(credential)) if credential else None
        if reference is None:
            raise Unauthenticated
        principal = self._principals.get(reference.hash)
        if principal is None:
            principal = await self._store.principals.lookup(_key(credential or ""))
            if principal is None:
                raise Unauthenticated
            self._principals.put(reference.hash, principal)
        return principal


def _key(credential: str) -> str:
    scheme, space, key = credential.strip().partition(" ")
    if space and scheme.lower() in SCHEMES:
        return key.strip()
    return credential.strip()
