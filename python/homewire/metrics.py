"""The table of all metrics, and the collector that exports them to Prometheus.

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

MetricsSource = Callable[[], Mapping[str, int]]
"""Called at each scrape: values by their names in `GAUGES` and `COUNTERS`."""

GAUGES: Final = {
    "connections": "Connections with a socket.",
    "stored_bytes": "Bytes that all projects store, as quotas count them. All nodes report the same "
    "sum, up to a minute old.",
    "stored_records": "Records that all projects store, as quotas count them. All nodes report the "
    "same sum, up to a minute old.",
    "reservations": "Connections that are reserved and not adopted yet.",
    "audiences": "Audiences: distinct sets of topics of the connections.",
    "topics": "Topics with at least one subscriber.",
    "inbox_bytes": "Bytes of envelopes between the stream reader and the reactor.",
    "send_queues_bytes": "Memory of all send queues, in bytes.",
    "slow_consumers": "Connections with unsent frames, now or within the last second.",
    "messages_bytes": "Bytes of clients' messages that Python did not take yet; 0 until there is a protocol.",
    "devices_connected": "Devices that have a command WebSocket on this node.",
    "presence_changes_waiting": "Devices with a presence change that is not stored yet.",
    "queued_command_removals_waiting": "Queued commands that were delivered and are not removed from "
    "their queue yet.",
    "session_uses_waiting": "Sessions whose last access is not stored yet.",
    "session_deadlines": "Keys with open sockets whose session ends within a day.",
    "request_headers_awaited": "HTTP connections whose request header is incomplete.",
    "connections_idle": "HTTP connections that wait for their next request.",
    "connections_refused_open": "Refused connections that are closed within a second.",
    "handshakes_in_flight": "WebSocket handshakes in progress.",
    "handshakes_waiting": "WebSocket handshakes that wait for a free place.",
    "requests_waiting": "REST requests that wait for their turn.",
    "request_bodies_bytes": "Bytes of request bodies in memory.",
    "response_bytes": "Bytes of responses over 64 KiB that clients have not read yet.",
    "sorted_lists": "Session lists that are being sorted in a file.",
    "mail_waiting": "E-mails that are not sent yet, on all nodes.",
    "sms_waiting": "SMS that are not sent yet, on all nodes.",
    "bus_in_flight_bytes": "Bytes written to Redis and not confirmed yet.",
    "webhooks_waiting": "Deliveries that wait in the streams of the webhooks that this node serves.",
}
"""Metrics that go up and down; all others are counters."""

COUNTERS: Final = {
    "reserved": "Reservations made.",
    "reservations_expired": "Reservations that were not adopted in time.",
    "adopted": "Sockets adopted from aiohttp.",
    "closed": "Connections that ended, including reservations.",
    "evicted": "Slow consumers that were closed with 4001.",
    "evicted_by_memory": "Slow consumers evicted because all send queues together exceeded "
    "`send_queues_bytes`, longest queue first.",
    "evicted_by_age": "Slow consumers evicted because a byte was unsent for longer than `send_queue_age_s`.",
    "reads_paused": "Times that a socket was not read because Python did not take clients' messages.",
    "queued_commands_delivered": "Queued commands that the kernel accepted for sending.",
    "session_uses_written": "Last accesses of sessions that were stored.",
    "session_uses_dropped": "Last accesses of sessions that were dropped because too many waited.",
    "session_checks": "Completed checks of all open sockets. Each check counts as a use of the "
    "sockets' sessions.",
    "sessions_expired": "Keys whose sockets were closed because their session had ended.",
    "sessions_closed_unchecked": "Keys whose sockets were closed because Redis could not be asked "
    "whether their session had ended.",
    "request_headers_timed_out": "Connections closed because their request header was incomplete "
    "after request_header_timeout_s.",
    "accepted": "TCP connections accepted.",
    "proxy_headers_refused": "Connections of trusted proxies closed because their PROXY protocol "
    "header was missing, malformed or late.",
    "connections_evicted": "Idle connections closed because file descriptors ran out.",
    "accept_pauses": "Pauses of one second in accepting, for lack of file descriptors or memory.",
    "requests_delayed": "REST requests that waited for their turn (requests_at_once).",
    "requests_refused": "REST requests answered 503 because too many waited for a turn, or because one "
    "waited too long.",
    "handshakes_refused": "WebSocket handshakes answered 503 because too many waited, or because one "
    "waited too long.",
    "request_bodies_refused": "Requests answered 503 because request bodies took request_bodies_bytes.",
    "responses_refused": "Requests answered 503 because unread responses took their limit of bytes.",
    "responses_aborted": "Connections closed within a response, because the client stopped reading "
    "or the rest could not be produced.",
    "sorted_lists_refused": "Requests answered 503 because too many session lists were being sorted "
    "in files.",
    "heartbeats_missed": "Connections closed because their client was silent.",
    "violations": "Connections closed because their client violated RFC 6455.",
    "inbound_exceeded": "Connections closed with 1008: their client exceeded `inbound_frames_per_s` or "
    "`inbound_bytes_per_s`.",
    "reads_deferred": "Turns of the reactor that reached their read limit and left sockets to later ones.",
    "envelopes": "Envelopes read from the bus.",
    "malformed": "Envelopes that were skipped: malformed, or in the wrong shard.",
    "control_records": "Control records applied.",
    "control_records_older": "Control records ignored because a newer one was applied before.",
    "control_records_unknown": "Control records of a type that this version does not know; "
    "subscribers are told (4002).",
    "revoked": "Connections closed because a control record ended or moved their access.",
    "subscription_changes": "Changes of the topics of open connections.",
    "gaps": "Times that entries of a shard may have been missed.",
    "resynced": "Connections closed because entries may have been missed.",
    "foreign_entries": "Entries of the shards without an envelope, which were skipped.",
    "trimmed_unread": "Entries that Redis trimmed before this node had read them.",
    "history_lost": "Times that a shard had lost entries.",
    "newer_versions": "Times that a shard had entries of a newer version of homewire, which "
    "this one cannot read.",
    "matched": "Envelopes with at least one subscriber on this node.",
    "deliveries": "Event and command frames that the kernel took, over all sockets.",
    "writes": "Calls of send and writev that wrote bytes.",
    "blocked_writes": "Calls that found a socket's buffer full.",
    "bytes_written": "Bytes that the kernel took.",
    "messages": "Messages received from clients; 0 until there is a protocol for them.",
    "turns": "Turns of the reactor that had envelopes.",
    "tail_reconnects": "Times that the stream reader reconnected to Redis.",
    "tail_redirects": "Times that a node of a Redis Cluster redirected the stream reader, or could not serve "
    "a shard.",
    "bus_appended": "Envelopes that Redis confirmed.",
    "bus_bytes": "Bytes written to Redis by the bus.",
    "bus_flushes": "Writes of the bus to Redis. bus_appended / bus_flushes is the mean size of a "
    "group commit.",
    "bus_not_confirmed": "Appends whose outcome is unknown.",
    "bus_unavailable": "Appends refused because Redis was unreachable or append_in_flight_bytes was reached.",
    "bus_duplicates": "Events repeated with an Idempotency-Key and not stored again.",
    "bus_reconnects": "Connections to Redis that the bus lost.",
    "relay_records": "Control records relayed from a transactional outbox to their shards.",
    "relay_copies": "Copies of control records that Redis confirmed, one for each shard.",
    "relay_late_records": "Control records that the timer relayed, because the change that wrote "
    "them did not.",
    "relay_malformed": "Outbox entries that could not be decoded and were dropped.",
    "relay_failures": "Rounds of the relay's timer that failed because of Redis.",
    "relay_messages": "E-mails and SMS relayed to the queue of their sender.",
    "relay_messages_without_sender": "E-mails and SMS stored for `homewire messages`, because no "
    "sender is configured.",
    "webhooks_dispatched": "Events written to the stream of a webhook.",
    "webhooks_delivered": "Events that a webhook answered with 200.",
    "webhooks_failed": "Requests to webhooks that failed or were not answered 200.",
    "webhooks_retried": "Failed requests to webhooks that will be tried again.",
    "webhooks_dead_letters": "Deliveries to webhooks that became dead letters.",
    "webhooks_missed": "Events that were trimmed from their shard before they were dispatched to webhooks.",
    "mail_sent": "E-mails that the SMTP server accepted.",
    "mail_failed": "Attempts to send an e-mail that failed.",
    "mail_dead_letters": "E-mails that became dead letters.",
    "mail_malformed": "Entries of the e-mail queue that could not be decoded and were dropped.",
    "mail_expired": "E-mails that were dropped because the token in them had expired.",
    "sms_sent": "SMS that the gateway accepted.",
    "sms_failed": "Attempts to send an SMS that failed.",
    "sms_dead_letters": "SMS that became dead letters.",
    "sms_malformed": "Entries of the SMS queue that could not be decoded and were dropped.",
    "sms_expired": "SMS that were dropped because the code in them had expired.",
    "passwords_refused": "Requests answered 503 because too many passwords waited to be hashed, or "
    "one waited too long.",
}

LABELLED: Final = {
    "logins": ("outcome", "Logins on this node, by outcome: `ok`, or the reason of the refusal."),
    "quota_refused": (
        "setting",
        "Changes refused because of a quota, by the name of its setting.",
    ),
    "refusals": ("reason", "Requests that were refused, by the reason in the response (docs/errors.md)."),
    "refused": (
        "limit",
        "Requests and handshakes answered 429, and connections closed at accept, by the name of the limit's "
        "setting.",
    ),
}
"""Counters with one label: the label's name, and the HELP text."""


class HomewireCollector(Collector):
    """Reads the counters at each scrape, so that counting costs the hot paths one addition."""

    def __init__(
        self,
        core: Core | None,
        bus: Bus,
        relay: Relay,
        labelled: Mapping[str, Mapping[str, int]],
        more: Sequence[MetricsSource],
    ) -> None:
        self._core = core
        self._bus = bus
        self._relay = relay
        self._labelled = labelled
        self._more = more

    def collect(self) -> Iterator[Metric]:
        """One metric family per row of the tables."""
        values = dict(self._core.stats()) if self._core is not None else {}
        for field in fields(self._bus.stats):
            values[f"bus_{field.name}"] = getattr(self._bus.stats, field.name)
        for field in fields(self._relay.stats):
            values[f"relay_{field.name}"] = getattr(self._relay.stats, field.name)
        for more in self._more:
            values.update(more())
        for name, value in values.items():
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
    more: Sequence[MetricsSource] = (),
) -> CollectorRegistry:
    """A registry with homewire's metrics and those of the process and of Python.

    `labelled` maps names of `LABELLED` to counts by label value.
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
        "`admin_host` and `admin_port`) returns them for Prometheus, with those of process and Python.",
        "Each value is of one node unless its row says otherwise. Counters begin at 0 at each start.",
        "",
        "| metric | type | meaning |",
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
