"""What stands between the port and the handlers, and bounds what comes in and what goes out.

How many handshakes are in flight: the others wait in a bounded queue, for a bounded time.

A storm of reconnects is what this is for: it costs the store and the processor no more at once than
`limit` handshakes do, and whoever can't be served soon is told so, instead of timing out after its work
was done for nothing. Deliveries have threads of their own and don't wait here.

How many requests and handshakes an address, and a principal of the REST service, may send in a second.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from aiohttp import web

from homewire.auth.models import Principal
from homewire.errors import TooManyRequests, Unavailable
from homewire.limits.buckets import Buckets
from homewire.limits.connections import network_of
from homewire.server.accept import Acceptor
from homewire.server.answers import HandedOff
from homewire.server.bodies import BodyBudget, Handler, wrapped
from homewire.server.clients import TrustedProxies, client_address
from homewire.server.connections import Connections, RequestHeaderTimeout
from homewire.server.outgoing import Answers, Pace
from homewire.settings import Settings


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Each of these bounds something."""

    acceptor: Acceptor
    rates: RequestRates
    heads: RequestHeaderTimeout
    connections: Connections
    handshakes: HandshakeLimiter
    bodies: BodyBudget
    answers: Answers

    @classmethod
    def of(cls, settings: Settings, refusals: Counter[str]) -> ServerLimits:
        """As the settings have it. `refusals` counts what is refused, by the setting."""
        heads = RequestHeaderTimeout(settings.request_header_timeout_s)
        connections = Connections(
            heads, settings.address_tcp_connections, settings.descriptor_reserve, refusals
        )
        rates = RequestRates(settings, refusals)
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
            heads,
            connections,
            HandshakeLimiter(
                settings.handshakes, settings.handshake_queue, settings.handshake_wait_s, rates.handshake
            ),
            BodyBudget(settings.request_bodies_bytes),
            Answers(
                settings.response_bytes,
                settings.response_bytes_per_principal,
                Pace(settings.response_stall_s, settings.response_min_bytes_per_s),
            ),
        )

    def metrics(self) -> list[Callable[[], Mapping[str, int]]]:
        """For the metrics."""
        bounds = (self.acceptor, self.heads, self.connections, self.handshakes, self.bodies, self.answers)
        return [each.metrics for each in bounds]


LONGEST_RETRY_S: Final = 5
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
    """At most `limit` at once; `queue` more wait up to `wait_s`. First come, first served."""

    def __init__(self, limit: int, queue: int, wait_s: float, count: Count) -> None:
        """`count` is told of each before it waits, and raises TooManyRequests for one too many."""
        self._limit = limit
        self._queue = queue
        self._wait_s = wait_s
        self._count = count
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._refused = 0

    def limited(self, routes: Sequence[web.RouteDef]) -> list[web.RouteDef]:
        """The same routes, whose handlers wait for their turn."""
        return wrapped(routes, self._taking_turns)

    def metrics(self) -> Mapping[str, int]:
        """For the metrics."""
        return {
            "handshakes_in_flight": self._in_flight,
            "handshakes_waiting": len(self._waiting),
            "handshakes_refused": self._refused,
        }

    def _taking_turns(self, handler: Handler) -> Handler:
        async def take_turn(request: web.Request) -> web.StreamResponse:
            self._count(request)
            if self._in_flight < self._limit and not self._waiting:
                self._in_flight += 1
            else:
                await self._wait()
            try:
                if request.transport is None:
                    return HandedOff()  # Its client gave up while it waited.
                return await handler(request)
            finally:
                self._pass_on()

        return take_turn

    async def _wait(self) -> None:
        """Wait for the place of somebody who is done. Raises TooManyHandshakes."""
        if len(self._waiting) >= self._queue:
            self._refused += 1
            raise TooManyHandshakes
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except TimeoutError as error:
            self._leave(turn)
            self._refused += 1
            raise TooManyHandshakes from error
        except BaseException:
            self._leave(turn)
            raise

    def _leave(self, turn: asyncio.Future[None]) -> None:
        """Give up waiting; a turn that came in the same moment goes to the next."""
        if turn.done() and not turn.cancelled():
            self._pass_on()
        else:
            with suppress(ValueError):  # Who passed its turn on was faster, and skipped it.
                self._waiting.remove(turn)

    def _pass_on(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._in_flight -= 1


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
