"""Metrics: what the core, the bus, the relay and the limits count, for Prometheus.

`python -m homewire.metrics` prints docs/metrics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from homewire._core import Core
from homewire.access_changes.relay import Relay
from homewire.bus.append import Bus

Figures = Callable[[], Mapping[str, int]]
"""Figures by their names in the tables, read at scrape time."""

GAUGES: Final = {
    "connections": "Connections with a socket.",
    "stored_bytes": "What all projects store, as quotas count it; the same on all nodes, up to a minute old.",
    "stored_records": "The same in records.",
    "reservations": "Connections that are reserved and not adopted yet.",
    "audiences": "Audiences: distinct sets of topics of the connections.",
    "topics": "Topics with at least one subscriber.",
    "inbox_bytes": "Bytes of envelopes between the stream reader and the reactor.",
    "send_queues_bytes": "Memory of all send queues, in bytes.",
    "slow_consumers": "Connections with unsent frames, now or within the last second.",
    "messages_bytes": "Bytes of clients' messages that Python did not take yet; 0 until there is a protocol.",
    "devices_held": "Devices that hold a command WebSocket on this node.",
    "presence_to_say": "Devices whose coming or going is not written down yet.",
    "commands_to_remove": "Kept commands that were delivered and are not taken out of their queue yet.",
    "session_uses_waiting": "Sessions whose last access is not written down yet.",
    "session_deadlines": "Keys of open sockets that end within a day.",
    "heads_awaited": "Connections without a complete request head.",
    "connections_idle": "HTTP connections that wait for their next request.",
    "handshakes_in_flight": "WebSocket handshakes being served.",
    "handshakes_waiting": "WebSocket handshakes waiting for their turn.",
    "ingest_bytes": "Request bodies held, in bytes.",
    "answer_bytes": "Answers of more than 64 KiB that clients did not take yet, in bytes.",
    "sorted_lists": "Lists of sessions that are sorted in a file.",
    "mail_waiting": "E-mails that are not sent yet, on all nodes.",
    "sms_waiting": "SMS that are not sent yet, on all nodes.",
    "bus_in_flight_bytes": "Bytes sent to Redis and not confirmed yet.",
    "webhooks_waiting": "Deliveries that wait for the webhooks that this node delivers to.",
}
"""Figures that go up and down; every other figure only grows."""

COUNTERS: Final = {
    "reserved": "Reservations made.",
    "reservations_expired": "Reservations that were not adopted in time.",
    "adopted": "Sockets adopted from aiohttp.",
    "closed": "Connections that ended, including reservations.",
    "evicted": "Slow consumers that were closed with 4001.",
    "evicted_by_memory": "Slow consumers evicted because all send queues together exceeded "
    "`send_queues_bytes`, longest queue first.",
    "evicted_by_age": "Slow consumers evicted because a byte was unsent for longer than `unsent_age_s`.",
    "reads_paused": "Times that a socket was not read because Python did not take clients' messages.",
    "commands_delivered": "Kept commands that the kernel took.",
    "session_uses_written": "Times that the last access of a session was written down.",
    "session_uses_dropped": "Uses of sessions that were not noted because too many waited.",
    "session_looks": "Looks at all open sockets that came to their end: each uses its session.",
    "sessions_expired": "Keys whose sockets were closed because their session was over.",
    "sessions_undecided": "The same, because Redis could not be asked whether it goes on.",
    "heads_timed_out": "Connections cut because their request head was not complete in time.",
    "accepted": "TCP connections accepted.",
    "proxy_headers_refused": "Connections of trusted proxies closed because their PROXY protocol header was "
    "missing, malformed or late.",
    "connections_closed_for_room": "Connections that did nothing and were closed when descriptors ran out.",
    "accept_pauses": "Times that nobody was accepted for a second, for want of descriptors or memory.",
    "handshakes_refused": "WebSocket handshakes answered 503 because too many waited, or too long.",
    "ingest_refused": "Requests answered 503 because too many bytes of bodies were held.",
    "answers_refused": "Requests answered 503 because too many bytes of answers were held.",
    "answers_cut": "Connections cut within an answer: not taken by its client, or not to be made whole.",
    "sorted_lists_refused": "Requests answered 503 because too many lists were sorted in files.",
    "heartbeats_missed": "Connections closed because their client was silent.",
    "violations": "Connections closed because their client violated RFC 6455.",
    "inbound_exceeded": "Connections closed with 1008: their client exceeded `inbound_frames_per_s` or "
    "`inbound_bytes_per_s`.",
    "reads_deferred": "Turns of the reactor that reached their read limit and left sockets to later ones.",
    "envelopes": "Envelopes read from the bus.",
    "malformed": "Envelopes that were skipped: malformed, or in the wrong shard.",
    "control_records": "Control records applied.",
    "control_records_older": "Control records ignored because a newer one was applied before.",
    "control_records_unknown": "Control records skipped because this version does not know their type.",
    "revoked": "Connections closed because a control record ended or moved their access.",
    "subscription_changes": "Changes of the topics of open connections.",
    "gaps": "Times that entries of a shard may have been missed.",
    "resynced": "Connections closed because entries may have been missed.",
    "foreign_entries": "Entries of the shards without an envelope, which were skipped.",
    "trimmed_unread": "Entries that Redis trimmed before this node had read them.",
    "history_lost": "Times that a shard had lost entries.",
    "matched": "Envelopes with at least one subscriber on this node.",
    "deliveries": "Event and command frames that the kernel took, over all sockets.",
    "writes": "Calls of send and writev that wrote bytes.",
    "blocked_writes": "Calls that found a socket's buffer full.",
    "bytes_written": "Bytes that the kernel took.",
    "messages": "Messages received from clients; 0 until there is a protocol for them.",
    "turns": "Turns of the reactor that had envelopes.",
    "tail_reconnects": "Times that the stream reader reconnected to Redis.",
    "bus_appended": "Envelopes that Redis confirmed.",
    "bus_bytes": "Bytes written to Redis.",
    "bus_flushes": "Writes to Redis; appended / flushes is the size of a group commit.",
    "bus_not_confirmed": "Appends whose outcome is unknown.",
    "bus_unavailable": "Appends refused because Redis was away or too much was in flight.",
    "bus_repeated": "Events sent again with an Idempotency-Key and not stored again.",
    "bus_reconnects": "Connections to Redis that the bus lost.",
    "relay_records": "Changes that every node must hear, relayed from an outbox to all their shards.",
    "relay_copies": "Copies of them that Redis confirmed; one a shard.",
    "relay_leftovers": "Of relay_records, those found by the timer and not by the change that made them.",
    "relay_not_understood": "Outbox entries that are no record and were dropped.",
    "relay_failures": "Times that Redis kept the timer from relaying.",
    "relay_messages": "Messages to people, relayed to the queue of what sends them.",
    "relay_messages_kept": "Messages to people that were kept, because nothing is set that could send them.",
    "webhooks_picked": "Events put into the stream of a webhook.",
    "webhooks_delivered": "Events that a webhook took.",
    "webhooks_failed": "Requests to a webhook that were not answered 200.",
    "webhooks_retried": "Of these, those that are to be tried again.",
    "webhooks_dead": "Deliveries to webhooks that were given up and are dead letters.",
    "webhooks_missed": "Events trimmed before any node, or any other than one that died, could look.",
    "mail_sent": "E-mails that the SMTP server took.",
    "mail_failed": "Tries to send an e-mail that failed.",
    "mail_dead": "E-mails that were given up.",
    "mail_not_understood": "Entries of the queue of e-mails that are no message and were dropped.",
    "mail_expired": "E-mails that were not sent before the token in them expired, and then not at all.",
    "sms_sent": "SMS that the gateway took.",
    "sms_failed": "Tries to send an SMS that failed.",
    "sms_dead": "SMS that were given up.",
    "sms_not_understood": "Entries of the queue of SMS that are no message and were dropped.",
    "sms_expired": "SMS that were not sent before the code in them expired, and then not at all.",
    "passwords_turned_away": "Requests answered 503 because too many passwords waited, or too long.",
}

LABELLED: Final = {
    "logins": ("outcome", "Logins on this node: `ok`, or the reason of the refusal."),
    "quota_refused": (
        "setting",
        "Changes refused because a project or user stores all it may, by the quota's setting.",
    ),
    "refusals": ("reason", "Requests that were refused, by the reason of their answer (docs/errors.md)."),
    "refused": (
        "limit",
        "Requests and handshakes answered 429, and connections closed at once, by the setting that is the "
        "limit.",
    ),
}
"""Counters with a label: its name, and what is counted."""


class HomewireCollector(Collector):
    """Reads the counters at scrape time; counting costs the hot paths nothing but an addition."""

    def __init__(
        self,
        core: Core | None,
        bus: Bus,
        relay: Relay,
        labelled: Mapping[str, Mapping[str, int]],
        more: Sequence[Figures],
    ) -> None:
        self._core = core
        self._bus = bus
        self._relay = relay
        self._labelled = labelled
        self._more = more

    def collect(self) -> Iterator[Metric]:
        """One metric family per row of the tables."""
        figures = dict(self._core.stats()) if self._core is not None else {}
        for field in fields(self._bus.stats):
            figures[f"bus_{field.name}"] = getattr(self._bus.stats, field.name)
        for field in fields(self._relay.stats):
            figures[f"relay_{field.name}"] = getattr(self._relay.stats, field.name)
        for more in self._more:
            figures.update(more())
        for name, value in figures.items():
            if name in GAUGES:
                yield GaugeMetricFamily(f"homewire_{name}", GAUGES[name], value=value)
            else:
                yield CounterMetricFamily(f"homewire_{name}", COUNTERS[name], value=value)
        for name, (label, meaning) in LABELLED.items():
            family = CounterMetricFamily(f"homewire_{name}", meaning, labels=[label])
            for of, count in self._labelled.get(name, {}).items():
                family.add_metric([of], count)
            yield family


def registry(
    core: Core | None,
    bus: Bus,
    relay: Relay,
    labelled: Mapping[str, Mapping[str, int]],
    more: Sequence[Figures] = (),
) -> CollectorRegistry:
    """A registry of this process: homewire's figures, and those of process and Python.

    `labelled` has, for names of `LABELLED`, counts by the value of the label.
    """
    metrics = CollectorRegistry()
    metrics.register(HomewireCollector(core, bus, relay, labelled, more))
    ProcessCollector(registry=metrics)
    PlatformCollector(registry=metrics)
    GCCollector(registry=metrics)
    return metrics


def markdown() -> str:
    """The page docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Made by `make docs` from `python/homewire/metrics.py`. `GET /metrics` at the admin port (settings",
        "`admin_host` and `admin_port`) says them in Prometheus' format, with those of process and Python.",
        "All are of one node unless the row says otherwise; they begin at 0 with each start.",
        "",
        "| metric | kind | what it is |",
        "| --- | --- | --- |",
    ]
    lines += [f"| `homewire_{name}` | gauge | {meaning} |" for name, meaning in sorted(GAUGES.items())]
    lines += [
        f"| `homewire_{name}_total` | counter | {meaning} |" for name, meaning in sorted(COUNTERS.items())
    ]
    lines += [
        f"| `homewire_{name}_total{{{label}}}` | counter | {meaning} |"
        for name, (label, meaning) in sorted(LABELLED.items())
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
