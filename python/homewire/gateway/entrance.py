"""What stands between the port and the handlers, and bounds what comes in and what goes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from homewire.gateway.accept import Acceptor
from homewire.gateway.connections import Connections
from homewire.gateway.handshakes import Handshakes
from homewire.gateway.heads import HeadWatch
from homewire.gateway.request_rates import RequestRates
from homewire.http.bodies import Bodies
from homewire.http.clients import TrustedProxies
from homewire.http.outgoing import Answers, Pace
from homewire.settings import Settings


@dataclass(frozen=True, slots=True)
class Entrance:
    """Each of these bounds something."""

    acceptor: Acceptor
    rates: RequestRates
    heads: HeadWatch
    connections: Connections
    handshakes: Handshakes
    bodies: Bodies
    answers: Answers

    @classmethod
    def of(cls, settings: Settings, refusals: Counter[str]) -> Entrance:
        """As the settings have it. `refusals` counts what is refused, by the setting."""
        heads = HeadWatch(settings.head_timeout_s)
        connections = Connections(
            heads, settings.address_tcp_connections, settings.descriptor_reserve, refusals
        )
        rates = RequestRates(settings, refusals)
        return cls(
            Acceptor(
                settings.accepts_per_turn,
                settings.head_timeout_s,
                TrustedProxies.of(settings),
                connections,
                proxy_protocol=settings.proxy_protocol,
                timeout_s=settings.socket_timeout_s,
                unsent_bytes=settings.socket_unsent_bytes,
            ),
            rates,
            heads,
            connections,
            Handshakes(
                settings.handshakes, settings.handshake_queue, settings.handshake_wait_s, rates.handshake
            ),
            Bodies(settings.ingest_bytes),
            Answers(
                settings.answer_bytes,
                settings.answer_bytes_per_principal,
                Pace(settings.answer_stall_s, settings.answer_rate_bytes_per_s),
            ),
        )

    def figures(self) -> list[Callable[[], Mapping[str, int]]]:
        """For the metrics."""
        bounds = (self.acceptor, self.heads, self.connections, self.handshakes, self.bodies, self.answers)
        return [each.figures for each in bounds]
