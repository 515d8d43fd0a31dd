"""Settings of the limits per principal, project and address: rates, connections, topics."""

from __future__ import annotations

from dataclasses import dataclass

from homewire.settings.fields import MIB, setting


@dataclass(frozen=True, kw_only=True)
class LimitsSection:
    """Limits that are answered 429. 0 means no limit for each of them."""

    device_events_per_s: int = setting(
        1_000, "Maximum events of one device; beyond it 429. 0: no limit.", unit="events/s", minimum=0
    )
    user_events_per_s: int = setting(
        1_000,
        "Maximum commands, and changes of values, of one user over all sessions; beyond it 429. 0: no limit.",
        unit="events/s",
        minimum=0,
    )
    project_key_events_per_s: int = setting(
        500_000,
        "Maximum events and commands of one project key; beyond it 429. A bulk counts its items and is "
        "accepted or refused as a whole. 0: no limit.",
        unit="events/s",
        minimum=0,
    )
    project_events_per_s: int = setting(
        1_000_000,
        "Maximum events, commands and changes of values of one project, from all senders; beyond it 429. 0: "
        "no limit.",
        unit="events/s",
        minimum=0,
    )
    device_event_bytes_per_s: int = setting(
        4 * MIB,
        "Maximum bytes of event bodies of one device; beyond it 429. A body is accepted while any of the "
        "second's bytes are left. 0: no limit.",
        unit="bytes",
        minimum=0,
    )
    user_event_bytes_per_s: int = setting(
        8 * MIB,
        "Maximum bytes of commands and values of one user; beyond it 429. 0: no limit.",
        unit="bytes",
        minimum=0,
    )
    project_key_event_bytes_per_s: int = setting(
        64 * MIB,
        "Maximum bytes of event and command bodies of one project key; beyond it 429. 0: no limit.",
        unit="bytes",
        minimum=0,
    )
    project_event_bytes_per_s: int = setting(
        128 * MIB,
        "Maximum bytes of bodies of one project, from all senders; beyond it 429. 0: no limit.",
        unit="bytes",
        minimum=0,
    )
    user_connections: int = setting(
        100,
        "Maximum WebSockets of one user on all nodes; beyond it 429. 0: no limit.",
        unit="connections",
        minimum=0,
    )
    device_connections: int = setting(
        10,
        "Maximum WebSockets of one device on all nodes; beyond it 429. 0: no limit.",
        unit="connections",
        minimum=0,
    )
    project_connections: int = setting(
        100_000,
        "Maximum WebSockets of one project on all nodes; beyond it 429. 0: no limit.",
        unit="connections",
        minimum=0,
    )
    address_connections: int = setting(
        10_000,
        "Maximum WebSockets from one address on all nodes; an IPv6 /64 is one address. Beyond it 429. Behind "
        "a balancer set trusted_proxies, or all clients share the balancer's address. 0: no limit.",
        unit="connections",
        minimum=0,
    )
    connection_lease_s: float = setting(
        30.0,
        "How long other nodes use the connection counts of a silent node, e.g. of one that was killed.",
        unit="s",
        minimum=0.5,
    )
    user_topic_bytes: int = setting(
        16 * MIB,
        "Maximum memory of the topics of one user or device on this node: about 200 bytes for a home, device "
        "or entity, and for an entity 100 and twice its id more. Beyond it new WebSockets are refused with "
        "429, and one that follows homes is closed with 4004. 0: no limit.",
        unit="bytes",
        minimum=0,
    )
    project_topic_bytes: int = setting(
        256 * MIB,
        "Maximum memory of the topics of one project on this node; beyond it as user_topic_bytes. 0: no "
        "limit.",
        unit="bytes",
        minimum=0,
    )
    address_requests_per_s: int = setting(
        2_000,
        "Maximum HTTP requests from one address to this node, with a burst of five seconds; an IPv6 /64 is "
        "one address. Beyond it 429. 0: no limit.",
        unit="requests/s",
        minimum=0,
    )
    principal_requests_per_s: int = setting(
        1_000,
        "Maximum REST requests of one user, device or project key to this node, with a burst of five "
        "seconds; events have limits of their own. Beyond it 429. 0: no limit.",
        unit="requests/s",
        minimum=0,
    )
    address_handshakes_per_s: int = setting(
        1_000,
        "Maximum WebSocket handshakes from one address at this node, with a burst of five seconds; beyond it "
        "429. 0: no limit.",
        unit="handshakes/s",
        minimum=0,
    )
    principal_handshakes_per_s: int = setting(
        200,
        "Maximum WebSocket handshakes of one user or device at this node, with a burst of five seconds; "
        "beyond it 429. 0: no limit.",
        unit="handshakes/s",
        minimum=0,
    )
