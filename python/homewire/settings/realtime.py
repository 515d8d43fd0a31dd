"""Settings of WebSockets: timeouts, send queues, kernel buffers, presence and queued commands."""

from __future__ import annotations

from dataclasses import dataclass

from homewire.settings.fields import KIB, MIB, setting


@dataclass(frozen=True, kw_only=True)
class RealtimeSection:
    """What a WebSocket may take, and how long the node waits for its client."""

    heartbeat_s: float = setting(25.0, "Interval of WebSocket pings.", unit="s", minimum=1)
    reservation_s: float = setting(
        5.0, "Maximum time between reservation and adoption of a connection.", unit="s", minimum=0.1
    )
    close_s: float = setting(
        5.0,
        "Maximum time for a client to answer a close frame, also at shutdown.",
        unit="s",
        minimum=0.1,
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
        "Maximum age of a frame in a send queue, checked once a second; after it the client is closed with "
        "4001.",
        unit="s",
        minimum=1,
    )
    socket_send_buffer_bytes: int = setting(
        0,
        "SO_SNDBUF of a WebSocket. 0: the kernel's default, which grows with the need.",
        unit="bytes",
        minimum=0,
    )
    socket_unsent_bytes: int = setting(
        512 * KIB,
        "TCP_NOTSENT_LOWAT of a connection: bytes that the kernel accepts before it has sent the earlier "
        "ones. 0: the kernel's default.",
        unit="bytes",
        minimum=0,
        maximum=1024 * MIB,
    )
    socket_timeout_s: float = setting(
        45.0,
        "TCP_USER_TIMEOUT of a connection: how long its peer may acknowledge or accept nothing. Must be more "
        "than send_queue_age_s + close_s, or slow clients get no close code. 0: the kernel's default.",
        unit="s",
        minimum=0,
    )
    inbound_frames_per_s: int = setting(
        200,
        "Maximum frames a second from one WebSocket, including pings and fragments, with a burst of five "
        "seconds; beyond it close code 1008. 0: no limit.",
        unit="frames/s",
        minimum=0,
        maximum=1_000_000_000,
    )
    inbound_bytes_per_s: int = setting(
        256 * KIB,
        "Maximum bytes a second from one WebSocket, with a burst of five seconds or of two of the longest "
        "messages; beyond it close code 1008. 0: no limit.",
        unit="bytes",
        minimum=0,
        maximum=2048 * MIB,
    )
    client_message_bytes: int = setting(
        64 * KIB,
        "Maximum message from the client of a WebSocket; beyond it close code 1009. Bodies of events and "
        "commands have a limit of their own, 64 KiB.",
        unit="bytes",
        minimum=KIB,
    )
    presence_lease_s: float = setting(
        10.0,
        "How long devices of a silent node count as connected. After it they are disconnected, e.g. when the "
        "node was killed.",
        unit="s",
        minimum=0.5,
    )
    queued_command_s: int = setting(
        604_800, "Maximum time that a command may be queued for a device (`queue`).", unit="s", minimum=1
    )
    queued_commands: int = setting(
        100,
        "Maximum commands queued for one device; beyond it 429.",
        unit="commands",
        minimum=1,
        maximum=500,
    )
    queued_command_bytes: int = setting(
        256 * KIB,
        "Maximum size of all commands queued for one device, at most send_queue_bytes; beyond it 429.",
        unit="bytes",
        minimum=KIB,
    )
