"""The limits of the HTTP server of one node: handshakes, requests, bodies and responses.

`HandshakeLimiter` bounds the handshakes in progress. Others wait in a bounded queue, for a bounded time. So a
storm of reconnects takes a bounded share of the store and the processor, and a client that cannot be served
soon gets a 503 instead of a timeout. Deliveries have their own threads and do not wait here.

`RequestTurns` bounds the REST requests in progress of one project, principal or address. `RequestRates`
bounds the requests and handshakes of one principal or address in a second.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
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
from homewire.server.turns import Turn, Turns
from homewire.settings import Settings


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """All limits of the HTTP server."""

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
        """The limits as configured. `refusals` counts refusals by the name of the setting."""
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
    """Too many handshakes wait. `Retry-After` is random, so that clients do not return together."""

    def __init__(self) -> None:
        super().__init__(limit="handshakes")
        self._retry_s = random.randint(1, LONGEST_RETRY_S)  # noqa: S311 (a client gains nothing by predicting it)

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": str(self._retry_s)}


class HandshakeLimiter:
    """At most `limit` handshakes at once; `queue` more wait up to `wait_s` seconds, in their order."""

    def __init__(self, limit: int, queue: int, wait_s: float, count: Count) -> None:
        """`count` is called with each request before it waits. It raises TooManyRequests beyond a rate."""
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
                    return HandedOff()  # The client closed its connection while the request waited.
                return await handler(request)

        return take_turn


class RequestTurns:
    """Limits the REST requests in progress: of a project, a principal, and an address without a key.

    So the requests of one client do not delay those of another: see `Turns`.
    """

    def __init__(self, most: int) -> None:
        """`most` is the limit of a project or address; a principal has a quarter of it. 0 is no limit."""
        self._projects = _request_turns(most)
        self._principals = _request_turns((most + 3) // 4)
        self._steps = _request_turns(min(most, 1))

    def of(self, caller: Principal | None, request: web.Request) -> AbstractAsyncContextManager[None]:
        """A context that holds a turn. Raises Unavailable if too many requests wait, or this one waited too
        long."""
        if caller is None:
            return self._projects.of(network_of(client_address(request) or ""))
        return _Both(self._principals.of((caller.kind, caller.id)), self._projects.of(caller.project_id))

    def of_step(self, caller: Principal | None, request: web.Request) -> AbstractAsyncContextManager[None]:
        """A context that holds the turn of one step of a long answer. The long answers of a project share
        one, because a step takes as long as many small requests. Raises Unavailable."""
        step = self._steps.of(None if caller is None else caller.project_id)
        return _Both(step, self.of(caller, request))

    def limited(self, routes: Sequence[web.RouteDef]) -> list[web.RouteDef]:
        """The same routes, for requests without a key: their handlers wait for a turn of the address."""
        return wrapped(routes, self._taking_turns)

    def _taking_turns(self, handler: Handler) -> Handler:
        async def take_turn(request: web.Request) -> web.StreamResponse:
            async with self.of(None, request):
                return await handler(request)

        return take_turn

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        all_turns = (self._projects, self._principals, self._steps)
        return {
            "requests_waiting": sum(each.waiting for each in all_turns),
            "requests_delayed": sum(each.delayed for each in all_turns),
            "requests_refused": sum(each.refused for each in all_turns),
        }


class _Both(AbstractAsyncContextManager[None]):
    """A turn, and others behind it."""

    __slots__ = ("_first", "_rest")

    def __init__(self, first: Turn, rest: AbstractAsyncContextManager[None]) -> None:
        self._first = first
        self._rest = rest

    async def __aenter__(self) -> None:
        await self._first.__aenter__()
        try:
            await self._rest.__aenter__()
        except BaseException:
            await self._first.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._rest.__aexit__(None, None, None)
        await self._first.__aexit__()


def _request_turns(most: int) -> Turns:
    return Turns(most, queue=WAITING_REQUESTS, wait_s=REQUEST_WAIT_S, refusal=_too_many, longest_s=TURN_S)


def _too_many() -> Unavailable:
    return Unavailable(limit="requests_at_once", problem="too many requests of this project or address wait")


PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Health checks of load balancers, which are answered beyond the limit, too: a balancer may have the same
address as many clients."""


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
        """`authenticate`, which then counts the request for its principal. For the REST service: events have
        other limits."""

        async def counted(request: web.Request) -> Principal:
            principal = await authenticate(request)
            self._principals.take((principal.kind, principal.id))
            return principal

        return counted
