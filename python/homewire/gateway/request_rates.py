"""How many requests and handshakes an address, and a principal of the REST service, may send in a second."""

from __future__ import annotations

from collections import Counter
from typing import Final

from aiohttp import web

from homewire.errors import TooManyRequests
from homewire.http.authority import Authenticate
from homewire.http.clients import client_address
from homewire.model import Principal
from homewire.overload.buckets import Buckets
from homewire.overload.holders import network_of
from homewire.settings import Settings

PROBES: Final = frozenset({"/healthz", "/readyz"})
"""What balancers ask, which may have the address of many clients: answered also beyond the limit."""


class RequestRates:
    """The limits on requests of one node."""

    def __init__(self, settings: Settings, refusals: Counter[str]) -> None:
        def buckets(setting: str) -> Buckets:
            return Buckets(setting, getattr(settings, setting), refusals)

        self._requests = buckets("address_requests_per_s")
        self._handshakes = buckets("address_handshakes_per_s")
        self._principals = buckets("principal_requests_per_s")

    def request(self, request: web.Request) -> None:
        """Count a request for its address. Raises TooManyRequests."""
        try:
            self._requests.take(network_of(client_address(request) or ""))
        except TooManyRequests:
            if request.path not in PROBES:
                raise

    def handshake(self, request: web.Request) -> None:
        """Count a handshake for its address. Raises TooManyRequests."""
        self._handshakes.take(network_of(client_address(request) or ""))

    def authenticating(self, authenticate: Authenticate) -> Authenticate:
        """The same, which also counts a request for its principal: for the REST service, as events have rates
        of their own."""

        async def counted(request: web.Request) -> Principal:
            principal = await authenticate(request)
            self._principals.take((principal.kind, principal.id))
            return principal

        return counted
