"""The settings: one typed object; environment, flags, help texts and docs/settings.md come from its fields.

The table is a plain dataclass, so that importing it costs nothing and a test says ``Settings(port=0)``.
Checking values takes pydantic, which costs up to 300 ms: `load` imports it. Which variables are values
of settings says `environment`.
"""

# ruff: noqa: RUF009  (a field made by `setting` is as immutable as one made by `dataclasses.field`)
from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints
from urllib.parse import urlsplit

from homewire import environment
from homewire.errors import ConfigurationError
from homewire.hosts import listed_networks, listed_origins, projects_by_host
from homewire.messages.calling_codes import listed_codes

ENVIRONMENT_PREFIX = environment.PREFIX
SECRET_KEY_LENGTH = 32
REDIS_SCHEMES = ("redis", "rediss", "unix")

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

BULK_BODY_BYTES = 4 * MIB
"""The longest body of `POST /events`."""
BULK_ITEMS = 1_000
"""The most events in one, as the core counts them (`MAX_ITEMS` in rust/core/src/input.rs)."""
ADDED_TO_AN_EVENT_BYTES = 4 * KIB
"""What a listener gets of an event beyond what the sender wrote, at most: names of a device class and of a
project key (256 characters each, of which JSON may make six bytes each), ids, time, address, names of members
and the frame, some 3.5 KB; and what the record of a piece takes in a send queue."""
LARGEST_BULK_BYTES = BULK_BODY_BYTES + BULK_ITEMS * ADDED_TO_AN_EVENT_BYTES
"""What the largest bulk takes in the send queue of a client that reads nothing of it yet, at most."""

Durability = Literal["always", "everysec"]
EventLoop = Literal["uvloop", "asyncio"]
SmtpTls = Literal["none", "starttls", "tls"]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]
ForwardedHeader = Literal["x-forwarded-for", "forwarded"]


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    flag: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
) -> Any:
    """One row of the table: a dataclass field that carries what help texts and docs say about it.

    `flag` is the command line option, where there is one. A `secret` value appears in no `repr`.
    """
    metadata = {
        "description": description,
        "unit": unit,
        "flag": flag,
        "minimum": minimum,
        "maximum": maximum,
        "secret": secret,
    }
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a deployment can choose. Times in seconds (`_s`), sizes in bytes (`_bytes`), rates `_per_s`."""

    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 for every interface.", flag="--host")
    port: int = setting(
        8080, "TCP port of HTTP and WebSocket; 0 takes a free one.", flag="--port", minimum=0, maximum=65535
    )
    admin_host: str = setting(
        "127.0.0.1",
        "Address of the admin port, which serves /metrics and says in /readyz what is wrong. It has neither "
        "keys nor TLS: who reaches it may see that.",
        flag="--admin-host",
    )
    admin_port: int = setting(
        0,
        "TCP port of these; 0 takes a free one, which `homewire run` prints.",
        flag="--admin-port",
        minimum=0,
        maximum=65535,
    )
    tls_cert: Path | None = setting(
        None,
        "Certificate (chain), PEM, to end TLS at the port; with --tls-key. Unset: plain HTTP.",
        flag="--tls-cert",
    )
    tls_key: Path | None = setting(
        None, "Private key of that certificate, PEM, without a passphrase.", flag="--tls-key"
    )
    hsts_s: int = setting(
        86_400,
        "How long browsers that came by https come by https alone (Strict-Transport-Security), where the "
        "node ends TLS. Make it a year once nothing is served by http; 0: it is not said.",
        unit="s",
        minimum=0,
    )
    tls_ca: Path | None = setting(
        None,
        "Certificates, PEM, that listen and send trust instead of the public authorities. The node on this "
        "machine is known by its own certificate (--tls-cert).",
        flag="--tls-ca",
    )
    workers: int = setting(
        1, "Worker processes. Only 1 for now; start more nodes behind a balancer.", flag="--workers"
    )
    backlog: int = setting(4096, "Accept backlog of the listening socket.", unit="connections", minimum=1)
    event_loop: EventLoop = setting("uvloop", "Event loop of the Python side.")
    accepts_per_turn: int = setting(
        64, "Connections accepted in one turn of the event loop.", unit="connections", minimum=1
    )
    trusted_proxies: str = setting(
        "",
        "Networks of the proxies and balancers before the node, e.g. 10.0.0.0/8,2001:db8::/32. What they say "
        "of a client (forwarded_header, X-Forwarded-Proto, PROXY protocol) is believed, and of nobody else: "
        "limits, sessions and events then have the client's address. Empty: the TCP peer's.",
    )
    forwarded_header: ForwardedHeader = setting(
        "x-forwarded-for",
        "Header in which trusted proxies name the client: x-forwarded-for, or forwarded (RFC 7239). The "
        "other one is ignored, because a proxy passes it on as the client sent it.",
    )
    proxy_protocol: bool = setting(
        False,
        "Whether each connection of a trusted proxy begins with a PROXY protocol header, version 2. One "
        "without it, or whose header is malformed or late (request_header_timeout_s), is closed.",
    )
    public_url: str | None = setting(
        None,
        "Where people reach this homewire, e.g. https://home.example.com: the beginning of the links in "
        "mails. Unset: host and port of the node.",
    )
    request_header_timeout_s: float = setting(
        10.0,
        "How long a whole request head may take, from the connection or a next request's first byte on.",
        unit="s",
        minimum=0.1,
    )
    keep_alive_s: float = setting(
        75.0,
        "How long a connection may rest between two requests. Behind a balancer longer than it keeps "
        "connections: AWS 60 s, Google 600 s. When descriptors run out, the longest idle are closed before.",
        unit="s",
        minimum=1,
    )
    address_tcp_connections: int = setting(
        4096,
        "TCP connections from one address that are no WebSockets; of IPv6 a /64 counts as one. Never more "
        "than a quarter of the descriptors; beyond it they are closed at once. 0: no limit.",
        unit="connections",
        minimum=0,
    )
    descriptor_reserve: int = setting(
        256,
        "Descriptors kept for the node itself, at most a quarter of its limit: what comes when only these "
        "are left takes the place of a connection that does nothing, or is closed.",
        unit="descriptors",
        minimum=0,
    )
    handshakes: int = setting(
        256, "WebSocket handshakes served at once; others wait.", unit="handshakes", minimum=1
    )
    handshake_queue: int = setting(
        4096, "WebSocket handshakes that wait; beyond it 503.", unit="handshakes", minimum=0
    )
    handshake_wait_s: float = setting(
        5.0,
        "How long a WebSocket handshake waits for its turn before it becomes a 503.",
        unit="s",
        minimum=0.1,
    )
    request_bodies_bytes: int = setting(
        64 * MIB,
        "Request bodies held at once, over all requests; beyond it 503.",
        unit="bytes",
        minimum=4 * MIB,
    )
    response_bytes: int = setting(
        64 * MIB,
        "Answers held at once because their clients did not take them yet; beyond it 503. One project may "
        "have half of it.",
        unit="bytes",
        minimum=4 * MIB,
    )
    response_bytes_per_principal: int = setting(
        8 * MIB,
        "The same of one user, device or project key, or of one address without a key; beyond it 503.",
        unit="bytes",
        minimum=MIB,
    )
    response_stall_s: float = setting(
        30.0, "How long a client may take nothing of its answer before it is cut.", unit="s", minimum=0.1
    )
    response_min_bytes_per_s: int = setting(
        4 * KIB,
        "The lowest rate at which an answer has to be taken, after the first response_stall_s.",
        unit="bytes/s",
        minimum=1,
    )
    sorted_lists: int = setting(
        8, "Lists of sessions that are sorted in a file at once; beyond it 503.", unit="lists", minimum=1
    )
    sorted_lists_per_project: int = setting(
        2, "The same of one project; beyond it 503.", unit="lists", minimum=1
    )
    sorted_list_s: float = setting(
        120.0, "How long a client may take for a list that is sorted in a file.", unit="s", minimum=1
    )
    body_timeout_s: float = setting(
        5.0, "How long a request may take to send its body.", unit="s", minimum=0.1
    )
    request_line_bytes: int = setting(
        128 * KIB, "Longest request line, hence query, that is read.", unit="bytes", minimum=8 * KIB
    )

    data_dir: Path = setting(
        Path("data"),
        "Directory of the embedded server, the demo's keys and node.json, the address of the running node.",
        flag="--data-dir",
    )
    redis_url: str | None = setting(
        None,
        "Redis to use, e.g. redis://host:6379 or unix:///path. Unset: the embedded server.",
        flag="--redis",
        secret=True,
    )
    redis_binary: Path | None = setting(
        None,
        "Server program to embed. Unset: the bundled one, else valkey-server or redis-server of the PATH.",
    )
    embedded_cluster: bool = setting(
        False,
        "Embedded server in cluster mode, with all slots on it: for homewire's own tests, where a command "
        "across slots has to fail.",
    )
    redis_memory_bytes: int = setting(
        0,
        "What the embedded server may take (maxmemory); at the limit writes are 503, and deleting makes "
        "room. 0: half of the machine's memory, or of the container's.",
        unit="bytes",
        minimum=0,
    )
    durability: Durability = setting(
        "always",
        "fsync of the embedded server: always loses nothing acknowledged; everysec may lose the last second "
        "in a power failure.",
        flag="--durability",
    )

    shards: int = setting(
        64, "Streams that events are spread over. The same on every node, for good.", minimum=1, maximum=16384
    )
    retention_age_s: float = setting(
        600.0, "How long events are kept for who comes back.", unit="s", minimum=1
    )
    retention_bytes: int = setting(
        256 * MIB, "How much is kept, over all shards.", unit="bytes", minimum=1 * MIB
    )
    append_deadline_s: float = setting(
        4.0, "When an append without an answer from Redis becomes a 503.", unit="s", minimum=0.1
    )
    append_in_flight_bytes: int = setting(
        16 * MIB, "Events sent to Redis and not yet confirmed; beyond it 503.", unit="bytes", minimum=1 * MIB
    )
    idempotency_ttl_s: float = setting(
        600.0, "How long an Idempotency-Key is remembered.", unit="s", minimum=1, maximum=86400
    )

    heartbeat_s: float = setting(25.0, "Ping interval of a WebSocket.", unit="s", minimum=1)
    reservation_s: float = setting(
        5.0, "How long a handshake may take between reservation and adoption.", unit="s", minimum=0.1
    )
    close_s: float = setting(
        5.0, "How long a client has to answer a close frame, also at shutdown.", unit="s", minimum=0.1
    )
    send_queue_bytes: int = setting(
        8 * MIB,
        "Maximum memory of the send queue of one connection; a slower client is closed with 4001. Less than "
        "the largest bulk of events (8 MiB) may close clients that read as fast as their link allows.",
        unit="bytes",
        minimum=KIB,
    )
    send_queues_bytes: int = setting(
        0,
        "Maximum memory of all send queues together; beyond it the connections with the longest queues are "
        "closed with 4001. 0: a quarter of the memory of the machine, or of the container.",
        unit="bytes",
        minimum=0,
    )
    send_queue_age_s: float = setting(
        30.0,
        "How long an event waits for a slow client (it is looked once a second); then the client is closed.",
        unit="s",
        minimum=1,
    )
    socket_send_buffer_bytes: int = setting(
        0, "SO_SNDBUF of a WebSocket. 0: the kernel's own, which grows as needed.", unit="bytes", minimum=0
    )
    socket_unsent_bytes: int = setting(
        512 * KIB,
        "TCP_NOTSENT_LOWAT of a connection: what the kernel takes beyond what it sent. 0: the kernel's own.",
        unit="bytes",
        minimum=0,
        maximum=1024 * MIB,
    )
    socket_timeout_s: float = setting(
        45.0,
        "TCP_USER_TIMEOUT of each connection: how long its peer may confirm nothing, or take nothing. More "
        "than send_queue_age_s and close_s together, or slow clients get no close code. 0: kernel's default.",
        unit="s",
        minimum=0,
    )
    inbound_frames_per_s: int = setting(
        200,
        "Frames that the client of one WebSocket may send, pings and fragments too, with five seconds' worth "
        "at once; beyond it close code 1008. 0: no limit.",
        unit="frames/s",
        minimum=0,
        maximum=1_000_000_000,
    )
    inbound_bytes_per_s: int = setting(
        256 * KIB,
        "The same in bytes, with five seconds' worth, or two of the longest messages, at once. 0: no limit.",
        unit="bytes",
        minimum=0,
        maximum=2048 * MIB,
    )
    client_message_bytes: int = setting(
        64 * KIB,
        "Longest message that the client of a WebSocket may send; beyond it close code 1009. The bodies of "
        "events and commands have a limit of their own, 64 KiB.",
        unit="bytes",
        minimum=KIB,
    )
    inbox_bytes: int = setting(
        16 * MIB, "Events between Redis and the reactor; beyond it reading waits.", unit="bytes", minimum=MIB
    )

    device_events_per_s: int = setting(
        1_000,
        "Events that one device may send; beyond it 429. 0: no limit, as for each of these.",
        unit="events/s",
        minimum=0,
    )
    user_events_per_s: int = setting(
        1_000,
        "Commands that one user may send, and values that one may set or delete, over all sessions.",
        unit="events/s",
        minimum=0,
    )
    project_key_events_per_s: int = setting(
        500_000,
        "Events and commands that one project key may send; a bulk body counts its items, and is taken or "
        "refused as a whole.",
        unit="events/s",
        minimum=0,
    )
    project_events_per_s: int = setting(
        1_000_000,
        "Events, commands and changes of values in one project, from all senders.",
        unit="events/s",
        minimum=0,
    )
    device_event_bytes_per_s: int = setting(
        4 * MIB,
        "Bytes of the bodies with which one device sends events; beyond it 429. A body is taken while "
        "anything is left for the second. 0: no limit, as for each of these.",
        unit="bytes",
        minimum=0,
    )
    user_event_bytes_per_s: int = setting(
        8 * MIB, "The same for commands and values of one user.", unit="bytes", minimum=0
    )
    project_key_event_bytes_per_s: int = setting(
        64 * MIB, "The same for all that one project key sends.", unit="bytes", minimum=0
    )
    project_event_bytes_per_s: int = setting(
        128 * MIB, "The same for one project, from all senders.", unit="bytes", minimum=0
    )
    idempotency_keys: int = setting(
        50_000,
        "Idempotency-Keys that one device, user or project key may use in `idempotency_ttl_s`, for which "
        "each is remembered; an event of a bulk body counts as one. Beyond it 429. 0: no limit, as for both.",
        unit="keys",
        minimum=0,
    )
    project_idempotency_keys: int = setting(
        500_000, "The same for one project, from all senders.", unit="keys", minimum=0
    )
    user_connections: int = setting(
        100,
        "WebSockets that one user may have on all nodes; beyond it 429. 0: no limit, as for each of these.",
        unit="connections",
        minimum=0,
    )
    device_connections: int = setting(
        10, "WebSockets that one device may have.", unit="connections", minimum=0
    )
    project_connections: int = setting(100_000, "WebSockets of one project.", unit="connections", minimum=0)
    address_connections: int = setting(
        10_000,
        "WebSockets from one address; of IPv6 a /64 counts as one. Behind a balancer set "
        "trusted_proxies, or all clients share the balancer's.",
        unit="connections",
        minimum=0,
    )
    user_topic_bytes: int = setting(
        16 * MIB,
        "Memory of the topics that the WebSockets of one user or device listen to on this node: about 200 "
        "bytes for a home, device or entity, and for an entity 100 and twice its id more. Beyond it 429 for "
        "another one, and 4004 for one whose followed homes become too many. 0: no limit.",
        unit="bytes",
        minimum=0,
    )
    project_topic_bytes: int = setting(
        256 * MIB, "The same of one project. 0: no limit.", unit="bytes", minimum=0
    )
    address_requests_per_s: int = setting(
        2_000,
        "HTTP requests from one address to this node; of IPv6 a /64 counts as one. Of these four limits five "
        "seconds' worth may come at once; beyond it 429. 0: no limit, as for each of them.",
        unit="requests/s",
        minimum=0,
    )
    principal_requests_per_s: int = setting(
        1_000,
        "Requests to the REST service of one user, device or project key; events have limits of their own.",
        unit="requests/s",
        minimum=0,
    )
    address_handshakes_per_s: int = setting(
        1_000, "WebSocket handshakes from one address.", unit="handshakes/s", minimum=0
    )
    principal_handshakes_per_s: int = setting(
        200, "WebSocket handshakes of one user or device.", unit="handshakes/s", minimum=0
    )
    presence_lease_s: float = setting(
        10.0,
        "How long devices of a node count as connected without word from it: when it was killed, they are "
        "disconnected after this.",
        unit="s",
        minimum=0.5,
    )
    queued_command_s: int = setting(
        604_800, "The longest that a command may be kept for a device (`queue`).", unit="s", minimum=1
    )
    queued_commands: int = setting(
        100, "Commands kept for one device; beyond it 429.", unit="commands", minimum=1, maximum=500
    )
    queued_command_bytes: int = setting(
        256 * KIB,
        "Commands kept for one device in sum, at most `send_queue_bytes`; beyond it 429.",
        unit="bytes",
        minimum=KIB,
    )
    connection_lease_s: float = setting(
        30.0,
        "How long a node's count of connections is believed by the others without word from it, e.g. "
        "after it was killed.",
        unit="s",
        minimum=0.5,
    )

    homes_per_user: int = setting(
        1_000, "Homes that one user may be a member of; 0: no limit.", unit="homes", minimum=0
    )
    principal_cache_entries: int = setting(
        20_000,
        "Keys whose principal is remembered, and as many of users, homes and devices.",
        unit="keys",
        minimum=0,
    )
    webhook_private_addresses: bool = setting(
        False,
        "Whether webhooks may be on private, loopback, link-local and other addresses that are not public.",
    )
    webhook_timeout_s: float = setting(
        10.0, "How long a webhook has to answer, with everything.", unit="s", minimum=0.1
    )
    webhook_connect_s: float = setting(
        5.0, "How long a connection to a webhook may take.", unit="s", minimum=0.1
    )
    webhook_requests: int = setting(
        128, "Requests to webhooks at once, of one node.", unit="requests", minimum=1
    )
    webhook_module_requests: int = setting(
        8, "Requests at once to one webhook. With 1 events arrive in order, but for retries.", minimum=1
    )
    webhook_backoff_s: float = setting(
        1.0, "Pause after the first try in vain; it doubles with each.", unit="s", minimum=0.01
    )
    webhook_backoff_max_s: float = setting(600.0, "Longest of these pauses.", unit="s", minimum=0.01)
    webhook_tries: int = setting(
        15, "Tries after which a delivery becomes a dead letter.", unit="tries", minimum=1
    )
    webhook_age_s: float = setting(
        86_400.0, "Age at which a delivery becomes a dead letter.", unit="s", minimum=1
    )
    webhook_breaker_failures: int = setting(
        10, "Failures in a row after which a webhook gets nothing for a while.", unit="failures", minimum=1
    )
    webhook_breaker_s: float = setting(
        15.0,
        "How long that while is at first; then one delivery probes, and each in vain doubles it, up to 16 "
        "times.",
        unit="s",
        minimum=0.1,
    )
    webhook_waiting_bytes: int = setting(
        16 * MIB,
        "Events that wait for one webhook; what comes beyond is a dead letter at once.",
        unit="bytes",
        minimum=128 * KIB,
    )
    webhook_dead_letters: int = setting(
        1000, "Dead letters kept of one webhook; the oldest go.", unit="letters", minimum=1
    )
    webhook_lease_s: float = setting(
        10.0,
        "After how long without a sign of a node others deliver what it was to deliver.",
        unit="s",
        minimum=1,
    )

    secret_key: str | None = setting(
        None,
        "Secret, at least 32 random characters, under which stored secrets (keys of smart modules, passwords "
        "of mail servers) are encrypted; the same on all nodes and for commands. Unset: made once, in "
        "secret.key in the data directory.",
        secret=True,
    )

    smtp_host: str | None = setting(
        None, "SMTP server that takes e-mails. Unset: they are kept, and `homewire outbox` shows them."
    )
    smtp_port: int = setting(587, "Its TCP port.", minimum=1, maximum=65535)
    smtp_tls: SmtpTls = setting("starttls", "tls from the first byte, starttls, or none.")
    smtp_user: str | None = setting(None, "User name at the SMTP server. Unset: no authentication.")
    smtp_password: str | None = setting(None, "Password at the SMTP server.", secret=True)
    smtp_from: str | None = setting(
        None, "Sender of e-mails: home@example.com or Home <home@example.com>. Needed with smtp_host."
    )
    smtp_ca: Path | None = setting(
        None, "Certificates, PEM, that the SMTP server's must be of instead of the public authorities'."
    )
    sms_url: str | None = setting(
        None,
        "Where SMS are posted to, signed, as JSON. Unset: they are kept, and `homewire outbox` shows them.",
        secret=True,
    )
    sms_key: str | None = setting(
        None,
        "Secret, at least 16 characters, that these posts are signed with. Needed with sms_url.",
        secret=True,
    )
    message_attempt_s: float = setting(
        20.0, "How long one try to hand over an e-mail or SMS may take.", unit="s", minimum=0.1
    )
    message_tries: int = setting(20, "How often that is tried.", unit="tries", minimum=1)
    message_backoff_s: float = setting(
        1.0,
        "Pause before the second try; the next ones are twice as long each, up to five minutes.",
        unit="s",
        minimum=0.1,
    )
    message_age_s: float = setting(
        3600.0, "How long it is tried: what it says may be worth nothing later.", unit="s", minimum=1
    )

    values_per_owner: int = setting(
        100_000,
        "Values that a home, or a device, may keep; beyond it a new one is 403.",
        unit="values",
        minimum=1,
    )
    value_bytes_per_owner: int = setting(
        64 * MIB,
        "Bytes of values that a home, or a device, may keep: a whole list is in memory for a moment.",
        unit="bytes",
        minimum=128 * KIB,
    )
    platform_event_types: bool = setting(
        False,
        "Whether clients may send event types that begin and end with `_`. They are the platform's own, so "
        "that listeners can trust `_deviceConnected_`; else such events are 403.",
    )
    entities_per_home: int = setting(
        10_000, "Entities that a home may have; beyond it a new one is 403.", unit="entities", minimum=1
    )
    project_bytes: int = setting(
        4 * GIB,
        "What a project may store, in bytes as docs/quotas.md counts them; beyond it 403. 0: no limit, as "
        "for each of these four.",
        unit="bytes",
        minimum=0,
    )
    project_records: int = setting(
        5_000_000, "What a project may store, in records.", unit="records", minimum=0
    )
    user_bytes: int = setting(
        256 * MIB,
        "What a user may store, in bytes: sessions, and all that is in homes which the user created.",
        unit="bytes",
        minimum=0,
    )
    user_records: int = setting(250_000, "The same in records.", unit="records", minimum=0)
    session_ttl_s: float = setting(
        30 * 86400.0,
        "How long a session, and the user key that it is, lives without being used.",
        unit="s",
        minimum=1,
    )
    ended_sessions: int = setting(
        100,
        "Sessions of a user, or device, that are over and stay readable for 30 days; the oldest go. 0: all.",
        unit="sessions",
        minimum=0,
    )
    session_absolute_s: float = setting(
        365 * 86400.0,
        "How long it lives however much it is used; 0: as long as that.",
        unit="s",
        minimum=0,
    )
    provisioning_ttl_s: float = setting(
        3600.0, "Lifetime of a token to provision a device with.", unit="s", minimum=1
    )
    code_lifetime_s: float = setting(
        600.0, "How long a sign-in code sent by SMS is good.", unit="s", minimum=0.001, maximum=7 * 86400
    )
    verification_lifetime_s: float = setting(
        86400.0,
        "How long the link that verifies an e-mail address is good.",
        unit="s",
        minimum=0.001,
        maximum=30 * 86400,
    )
    address_registrations: int = setting(
        20,
        "Registrations of one e-mail address that wait to be verified; with one more the oldest goes.",
        unit="registrations",
        minimum=1,
        maximum=100,
    )
    unverified_user_s: float = setting(
        7 * 86400.0,
        "How long a user stays who registered, and verified neither address nor number.",
        unit="s",
        minimum=1,
    )
    invitation_s: float = setting(
        30 * 86400.0,
        "How long somebody stays a member of homes who was added to them and never registered.",
        unit="s",
        minimum=1,
    )
    password_reset_lifetime_s: float = setting(
        3600.0, "How long a link to reset a password is good.", unit="s", minimum=0.001, maximum=7 * 86400
    )
    login_token_lifetime_s: float = setting(
        600.0, "How long a login token is good; it works once.", unit="s", minimum=0.001, maximum=7 * 86400
    )
    recent_login_s: float = setting(
        300.0,
        "How long after a login a user may choose a new password without the present one.",
        unit="s",
        minimum=0.001,
        maximum=86400,
    )
    attempts_window_s: float = setting(
        600.0,
        "The time that the limits of addresses, messages and new passwords are for; it begins with the first "
        "that counts. They hold on all nodes together, per project; beyond one 429.",
        unit="s",
        minimum=0.1,
        maximum=86400,
    )
    account_attempts: int = setting(
        10,
        "Wrong passwords and codes in a row for one account from one network (/24, of IPv6 /64); the next "
        "ones have to wait (attempts_delay_s). 0: no limit, as for each of these.",
        unit="attempts",
        minimum=0,
    )
    stranger_attempts: int = setting(
        20,
        "The same from all networks together where nobody logged in to the account, or reset its password, "
        "in 90 days: so a stranger locks out strangers.",
        unit="attempts",
        minimum=0,
    )
    attempts_delay_s: float = setting(
        30.0,
        "How long the next guess has to wait when these are used up; twice as long after each that is wrong. "
        "A right one ends it. After 100 in a row there are no more, until nobody was wrong for twice "
        "attempts_delay_max_s, at least a day.",
        unit="s",
        minimum=0.1,
        maximum=86400,
    )
    attempts_delay_max_s: float = setting(
        86_400.0, "The longest of these delays.", unit="s", minimum=0.1, maximum=30 * 86400
    )
    address_attempts: int = setting(
        100,
        "Wrong passwords, codes and tokens from one address; of IPv6 a /64 counts as one. Behind a "
        "balancer set trusted_proxies.",
        unit="attempts",
        minimum=0,
    )
    account_messages: int = setting(
        5,
        "E-mails and SMS that are asked for to one address or number from one network (/24, of IPv6 /64). "
        "Invitations count apart; beyond it members are added without a mail.",
        unit="messages",
        minimum=0,
    )
    recipient_messages: int = setting(
        20,
        "The same from all networks together where nobody logged in to the account in 90 days.",
        unit="messages",
        minimum=0,
    )
    project_sms_per_day: int = setting(
        1_000,
        "SMS that one project sends in a day, for all its users together. A quarter is left for users at "
        "networks where they logged in lately; a number gets a tenth, or recipient_messages if that is more.",
        unit="SMS",
        minimum=0,
    )
    sms_country_codes: str = setting(
        "",
        "Country calling codes that SMS are sent to: 49,43,1. Empty: those of all countries, and no "
        "satellites' or other ones. A project may have its own (`homewire project set`).",
    )
    user_invitations: int = setting(
        20,
        "Members that one user adds to homes in a day; more are refused. 0: any number. Project keys add as "
        "many as they like.",
        unit="members",
        minimum=0,
    )
    address_messages: int = setting(
        200,
        "Registrations, e-mails and SMS that are asked for from one address.",
        unit="messages",
        minimum=0,
    )
    user_passwords: int = setting(5, "New passwords that one user may set.", unit="passwords", minimum=0)
    project_passwords: int = setting(
        64,
        "Passwords of one project that wait on one node to be verified; as many that are to be changed, and "
        "as many of registrations. Logins go first, and projects take turns. Beyond it 429. 0: no limit.",
        unit="passwords",
        minimum=0,
    )
    default_project: int | None = setting(
        None,
        "Project of the commands that are given none, and of the session APIs where the host (project_hosts) "
        "does not tell it.",
        minimum=1,
    )
    project_hosts: str = setting(
        "",
        "Projects by the host that a request came to, for the session APIs that know no projects: "
        "a.example.com=3,b.example.com=4. A host with a port is for that port only.",
    )
    cookie_origins: str = setting(
        "",
        "Origins, besides the service's own, whose pages may read and change something with a session's "
        "cookie, and open a WebSocket: https://app.example.com,https://b.example.com. Browsers send the "
        "cookie only from the same site.",
    )

    log_level: LogLevel = setting("info", "Least level that is logged.")
    log_format: LogFormat = setting(
        "auto", "json: one object a line; console: for people; auto: console on a terminal, else json."
    )

    @property
    def public_base_url(self) -> str:
        """What the links in messages begin with, without a final slash."""
        return (self.public_url or self.base_url).rstrip("/")

    @property
    def by_https(self) -> bool:
        """Whether people reach this homewire by https, however its nodes are reached."""
        return self.public_base_url.startswith("https://")

    @property
    def base_url(self) -> str:
        """Where this machine reaches the server, e.g. ``http://127.0.0.1:8080``; https with a `tls_cert`."""
        return f"{'http' if self.tls_cert is None else 'https'}://{_reachable(self.host)}:{self.port}"

    @property
    def admin_url(self) -> str:
        """Where this machine reaches the admin port."""
        return f"http://{_reachable(self.admin_host)}:{self.admin_port}"


def _reachable(host: str) -> str:
    """The host in a URL by which this machine reaches what listens on `host`."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
    named = everywhere.get(host, host)
    return f"[{named}]" if ":" in named else named


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as help texts and documentation show it."""

    name: str
    environment: str
    flag: str
    default: str
    unit: str
    description: str
    secret: bool


def rows() -> Iterator[Row]:
    """The whole table, in the order of the fields."""
    for field in dataclasses.fields(Settings):
        yield Row(
            name=field.name,
            environment=ENVIRONMENT_PREFIX + field.name.upper(),
            flag=field.metadata["flag"],
            default="" if field.default is None else str(field.default),
            unit=field.metadata["unit"],
            description=field.metadata["description"],
            secret=field.metadata["secret"],
        )


def load(**given: Any) -> Settings:
    """Settings from flags, else from the environment, else the defaults.

    A flag that is None was not given. Sizes may be written ``64KiB`` or ``1MiB`` in the environment.
    Raises ConfigurationError naming every setting that can't be used, and for a variable that is nearly one.
    """
    from pydantic import ByteSize, Field, ValidationError, create_model

    chosen = {name: value for name, value in given.items() if value is not None}
    hints = get_type_hints(Settings)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        kind = ByteSize if field.metadata["unit"] == "bytes" else hints[field.name]
        limits = {"ge": field.metadata["minimum"], "le": field.metadata["maximum"]}
        fields[field.name] = (kind, Field(field.default, **limits))
    model = create_model("Environment", **fields)
    try:
        values = model(**{**in_environment().values, **chosen})
    except ValidationError as error:
        raise ConfigurationError(_problems(error.errors(include_input=False))) from None
    settings = Settings(**values.model_dump())
    _check(settings)
    return settings


def in_environment() -> environment.Environment:
    """The variables of this process, sorted out. Raises ConfigurationError for a slip."""
    table = list(rows())
    return environment.read(
        os.environ, [row.name for row in table], [row.name for row in table if row.secret]
    )


def _check(settings: Settings) -> None:
    """What types and limits can't say. Raises ConfigurationError."""
    if settings.workers != 1:
        raise ConfigurationError(
            f"--workers {settings.workers}: several workers in one node do not exist yet. "
            "Leave it at 1, or start more nodes on the same Redis."
        )
    if settings.secret_key is not None and len(settings.secret_key) < SECRET_KEY_LENGTH:
        raise ConfigurationError(
            f"{named('secret_key')}: needs at least {SECRET_KEY_LENGTH} characters, e.g. of "
            "`openssl rand -hex 32`"
        )
    if settings.public_url is not None and urlsplit(settings.public_url).scheme not in ("http", "https"):
        raise ConfigurationError(f"{named('public_url')}: must begin with https:// or http://")
    _check_form(projects_by_host, settings.project_hosts, "project_hosts", "a.example.com=3,b.example.com=4")
    _check_form(listed_codes, settings.sms_country_codes, "sms_country_codes", "49,43,1")
    _check_form(listed_origins, settings.cookie_origins, "cookie_origins", "https://app.example.com")
    _check_form(listed_networks, settings.trusted_proxies, "trusted_proxies", "10.0.0.0/8,2001:db8::/32")
    if settings.proxy_protocol and not listed_networks(settings.trusted_proxies):
        raise ConfigurationError(f"{named('proxy_protocol')}: needs {named('trusted_proxies')}")
    if settings.redis_url is not None and urlsplit(settings.redis_url).scheme not in REDIS_SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in REDIS_SCHEMES)
        raise ConfigurationError(f"--redis (HOMEWIRE_REDIS_URL): must begin with one of {schemes}")


def contradictions(settings: Settings) -> Iterator[tuple[str, str]]:
    """Settings that contradict a bound: what is so and what to do, in words for the operator."""
    if settings.send_queue_bytes < LARGEST_BULK_BYTES:
        yield (
            f"{named('send_queue_bytes')}: {settings.send_queue_bytes} bytes are less than the largest bulk "
            f"of events, {LARGEST_BULK_BYTES} bytes: a client that reads as fast as its link allows may be "
            "closed with 4001",
            "raise it, or send smaller bulks",
        )


def _check_form(parse: Callable[[str], object], value: str, name: str, example: str) -> None:
    try:
        parse(value)
    except ValueError:
        raise ConfigurationError(f"{named(name)}: must look like {example}") from None


def _problems(errors: Any) -> str:
    """What is wrong with which settings; values stay out of it, for one may be a secret."""
    return "; ".join(f"{named(str(error['loc'][0]))}: {in_plain_words(error)}" for error in errors)


_PLAIN = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "byte_size": "must be a number of bytes, e.g. 65536, 64KiB or 1MiB",
    "byte_size_unit": "must be a number of bytes, e.g. 65536, 64KiB or 1MiB",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
}


def in_plain_words(error: Any) -> str:
    """The problem of one of pydantic's errors, without the words of the implementation."""
    told = _PLAIN.get(error["type"])
    if told is None:
        return str(error["msg"]).removeprefix("Value error, ")
    return told.format(**error.get("ctx", {})).replace("'", "")


def named(name: str) -> str:
    """A setting as an error names it: its flag, where it has one, and its variable."""
    variable = ENVIRONMENT_PREFIX + name.upper()
    flag = next((row.flag for row in rows() if row.name == name), "")
    return f"{flag} ({variable})" if flag else variable


def redacted(url: str) -> str:
    """A Redis URL as it may be shown: without user, password and query."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def markdown() -> str:
    """The page docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made by `make docs` from `python/homewire/settings.py`. A flag wins over the environment.",
        "Sizes may be written `64KiB` or `1MiB` in the environment. An empty variable counts as not set.",
        "What Kubernetes injects for a Service (`HOMEWIRE_PORT=tcp://…`, `HOMEWIRE_SERVICE_HOST`, …) is",
        "ignored. A name that is nearly a setting's is an error.",
        "",
        "A secret belongs into a file: `HOMEWIRE_…_FILE` names one, and its first line is the value. The",
        "list of processes and the history of a shell show what is given as a flag.",
        "",
        "| environment | flag | default | unit | what it does |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows():
        flag = f"`{row.flag}`" if row.flag else ""
        default = f"`{row.default}`" if row.default else "none"
        variables = f"`{row.environment}`" + (f", `{row.environment}_FILE`" if row.secret else "")
        lines.append(f"| {variables} | {flag} | {default} | {row.unit} | {row.description} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--markdown"]:
        sys.exit("usage: python -m homewire.settings --markdown")
    sys.stdout.write(markdown())
