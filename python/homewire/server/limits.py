"""What stands between the port and the handlers, and bounds what comes in and what goes out.

How many handshakes are in flight: the others wait in a bounded queue, for a bounded time.

A storm of reconnects is what this is for: it costs the store and the processor no more at once than
`limit` handshakes do, and whoever can't be served soon is told so, instead of timing out after its work
was done for nothing. Deliveries have threads of their own and don't wait here.

How many requests and handshakes an address, and a principal of the REST service, may send in a second.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias

from aiohttp import web

from homewire.auth.models import Principal
from homewire.clock import MACHINE_CLOCK, Clock
from homewire.errors import Unavailable
from homewire.limits.buckets import Buckets
from homewire.limits.connections import network_of
from homewire.server.accept import Acceptor
from homewire.server.answers import HandedOff
from homewire.server.clients import TrustedProxies, client_address
from homewire.server.connections import Connections, RequestHeaderTimeout
from homewire.server.requests import BodyBudget, Handler, wrapped
from homewire.server.streaming import Pace, ResponseBudget
from homewire.server.turns import Turns
from homewire.settings import Settings


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Each of these bounds something."""

    acceptor: Acceptor
    rates: RequestRates
    header_timeout: RequestHeaderTimeout
    connections: Connections
    handshakes: HandshakeLimiter
    turns: RequestTurns
    bodies: BodyBudget
    response_budget: ResponseBudget

    @classmethod
    def of(cls, settings: Settings, refusals: Counter[str], clock: Clock = MACHINE_CLOCK) -> ServerLimits:
        """As the settings have it. `refusals` counts what is refused, by the setting."""
        header_timeout = RequestHeaderTimeout(settings.request_header_timeout_s)
        connections = Connections(
            header_timeout, settings.address_tcp_connections, settings.descriptor_reserve, refusals, clock
        )
        rates = RequestRates(settings, refusals, clock)
        return cls(
            Acceptor(
                settings.accepts_per_turn,
                settings.request_header_timeout_s,
                TrustedProxies.of(settings),
                connections,
                proxy_protocol=settings.proxy_protocol,
                timeout_s=settings.socket_timeout_s,
                unsent_bytes=settings.socket_unsent_bytes,
            ),
            rates,
            header_timeout,
            connections,
            HandshakeLimiter(
                settings.handshakes, settings.handshake_queue, settings.handshake_wait_s, rates.handshake
            ),
            RequestTurns(settings.requests_at_once),
            BodyBudget(settings.request_bodies_bytes),
            ResponseBudget(
                settings.response_bytes,
                settings.response_bytes_per_principal,
                Pace(settings.response_stall_s, settings.response_min_bytes_per_s),
                clock,
            ),
        )

    def metrics(self) -> list[Callable[[], Mapping[str, int]]]:
        """For the metrics."""
        bounds = (
            self.acceptor,
            self.header_timeout,
            self.connections,
            self.handshakes,
            self.turns,
            self.bodies,
            self.response_budget,
        )
        return [each.metrics for each in bounds]


LONGEST_RETRY_S: Final = 5
WAITING_REQUESTS: Final = 1_000
"""The most requests of one subject that wait for their turn."""
REQUEST_WAIT_S: Final = 30.0
TURN_S: Final = 0.1
"""A request that takes longer waits for Redis, for a hash or for a client, and lets the next one begin."""
Count: TypeAlias = Callable[[web.Request], None]


class TooManyHandshakes(Unavailable):
    """So many wait already. Clients are sent away for different times, or all would be back at once."""

    def __init__(self) -> None:
        super().__init__(limit="handshakes")
        self._retry_s = random.randint(1, LONGEST_RETRY_S)  # noqa: S311 (nobody gains by guessing it)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self._retry_s)}


class HandshakeLimiter:
    """At most `limit` handshakes at once; `queue` more wait up to `wait_s`. First come, first served."""

    def __init__(self, limit: int, queue: int, wait_s: float, count: Count) -> None:
        """`count` is told of each before it waits, and raises TooManyRequests for one too many."""
        self._turns = Turns(limit, queue=queue, wait_s=wait_s, refusal=TooManyHandshakes)
        self._count = count

    def limited(self, routes: Sequence[web.RouteDef]) -> list[web.RouteDef]:
        """The same routes, whose handlers wait for their turn."""
        return wrapped(routes, self._taking_turns)

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return {
            "handshakes_in_flight": self._turns.taken,
            "handshakes_waiting": self._turns.waiting,
            "handshakes_refused": self._turns.refused,
        }

    def _taking_turns(self, handler: Handler) -> Handler:
        async def take_turn(request: web.Request) -> web.StreamResponse:
            self._count(request)
            async with self._turns.of(None):
                if request.transport is None:
                    return HandedOff()  # Its client gave up while it waited.
                return await handler(request)

        return take_turn


class RequestTurns:
    """How many requests of the REST service are served at once: of a project, a user, a device, an address
    without a key. This shares the event loop fairly: see `Turns`."""

    def __init__(self, most: int) -> None:
        """`most` of a project or address, a quarter of it of a user, device or project key; 0: no limit."""
        self._projects = _request_turns(most)
        self._principals = _request_turns((most + 3) // 4)

    @asynccontextmanager
    async def of(self, caller: Principal | None, request: web.Request) -> AsyncIterator[None]:
        """Hold a turn. Raises Unavailable when too many wait already, or this one waited too long."""
        if caller is None:
            async with self._projects.of(network_of(client_address(request) or "")):
                yield
        else:
            async with (
                self._principals.of((caller.kind, caller.id)),
                self._projects.of(caller.project_id),
            ):
                yield

    def limited(self, routes: Sequence[web.RouteDef]) -> list[web.RouteDef]:
        """The same routes, of requests that need no key; their handlers wait for a turn of the address."""
        return wrapped(routes, self._taking_turns)

    def _taking_turns(self, handler: Handler) -> Handler:
        async def take_turn(request: web.Request) -> web.StreamResponse:
            async with self.of(None, request):
                return await handler(request)

        return take_turn

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        both = (self._projects, self._principals)
        return {
            "requests_waiting": sum(each.waiting for each in both),
            "requests_delayed": sum(each.delayed for each in both),
            "requests_refused": sum(each.refused for each in both),
        }


def _request_turns(most: int) -> Turns:
    return Turns(most, queue=WAITING_REQUESTS, wait_s=REQUEST_WAIT_S, refusal=_too_many, longest_s=TURN_S)


def _too_many() -> Unavailable:
    return Unavailable(limit="requests_at_once", problem="so many requests of this project or address wait")


PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Requests of load balancers, which may have the address of many clients: answered beyond the limit, too."""


class RequestRates:
    """The limits on requests of one node."""

    def __init__(self, settings: Settings, refusals: Counter[str], clock: Clock = MACHINE_CLOCK) -> None:
        def buckets(setting: str) -> Buckets:
            return Buckets(setting, getattr(settings, setting), refusals, clock)

        self._requests = buckets("address_requests_per_s")
        self._handshakes = buckets("address_handshakes_per_s")
        self._principals = buckets("principal_requests_per_s")

    def request(self, request: web.Request) -> None:
        """Count a request for its address. Raises TooManyRequests."""
        self._requests.take(network_of(client_address(request) or ""))

    def handshake(self, request: web.Request) -> None:
        """Count a handshake for its address. Raises TooManyRequests."""
        self._handshakes.take(network_of(client_address(request) or ""))

    def authenticating(
        self, authenticate: Callable[[web.Request], Awaitable[Principal]]
    ) -> Callable[[web.Request], Awaitable[Principal]]:
        """The same, which also counts a request for its principal: for the REST service, as events have rates
        of their own."""

        async def counted(request: web.Request) -> Principal:
            principal = await authenticate(request)
            self._principals.take((principal.kind, principal.id))
            return principal

        return counted
