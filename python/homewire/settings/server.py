"""Settings of the HTTP server: ports, TLS, proxies, connections, requests, responses and the log."""

# ruff: noqa: RUF009  (a field made by `setting` is as immutable as one made by `dataclasses.field`)
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from homewire.settings.fields import KIB, MIB, EventLoop, ForwardedHeader, LogFormat, LogLevel, setting


@dataclass(frozen=True, kw_only=True)
class ServerSection:
    """Ports, TLS, proxies, and the bounds of connections, requests and responses."""

    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 for all interfaces.", flag="--host")
    port: int = setting(
        8080, "TCP port of HTTP and WebSocket; 0 takes a free one.", flag="--port", minimum=0, maximum=65535
    )
    admin_host: str = setting(
        "127.0.0.1",
        "Address of the admin port, which serves /metrics and, with details, /readyz. It has no keys and no "
        "TLS: do not make it reachable for clients.",
        flag="--admin-host",
    )
    admin_port: int = setting(
        0,
        "TCP port of the admin service; 0 takes a free one, which `homewire run` prints.",
        flag="--admin-port",
        minimum=0,
        maximum=65535,
    )
    tls_cert: Path | None = setting(
        None,
        "Certificate chain, PEM, for TLS at the port; with --tls-key. Unset: plain HTTP.",
        flag="--tls-cert",
    )
    tls_key: Path | None = setting(
        None, "Private key of the certificate, PEM, without a passphrase.", flag="--tls-key"
    )
    hsts_s: int = setting(
        86_400,
        "Duration of Strict-Transport-Security, if the node serves TLS itself. Set a year once nothing is "
        "served by plain HTTP. 0: the header is not sent.",
        unit="s",
        minimum=0,
    )
    tls_ca: Path | None = setting(
        None,
        "Certificates, PEM, that the commands listen and send trust instead of the public authorities. "
        "Unset on the node's machine: the node's own certificate (--tls-cert) is trusted.",
        flag="--tls-ca",
    )
    workers: int = setting(
        1, "Worker processes. Must be 1 for now; start more nodes behind a balancer.", flag="--workers"
    )
    backlog: int = setting(4096, "Accept backlog of the listening socket.", unit="connections", minimum=1)
    event_loop: EventLoop = setting("uvloop", "Event loop of the Python side.")
    accepts_per_turn: int = setting(
        64, "Maximum connections accepted in one turn of the event loop.", unit="connections", minimum=1
    )
    trusted_proxies: str = setting(
        "",
        "Networks of proxies and balancers in front of the node, e.g. 10.0.0.0/8,2001:db8::/32. Only their "
        "statements about a client (forwarded_header, X-Forwarded-Proto, PROXY protocol) are used for "
        "limits, sessions and events. Empty: the address of the TCP peer is used.",
    )
    forwarded_header: ForwardedHeader = setting(
        "x-forwarded-for",
        "Header in which trusted proxies name the client: x-forwarded-for, or forwarded (RFC 7239). The "
        "other header is ignored, because a proxy passes it on as the client sent it.",
    )
    proxy_protocol: bool = setting(
        False,
        "Whether each connection of a trusted proxy begins with a PROXY protocol header, version 2. "
        "Connections with a missing, malformed or late header (request_header_timeout_s) are closed.",
    )
    public_url: str | None = setting(
        None,
        "URL under which users reach this service, e.g. https://home.example.com. Links in e-mails begin "
        "with it. Unset: host and port of the node.",
    )
    request_header_timeout_s: float = setting(
        10.0,
        "Maximum time for a complete request header, from the connection or the request's first byte.",
        unit="s",
        minimum=0.1,
    )
    keep_alive_s: float = setting(
        75.0,
        "Maximum idle time of a connection between two requests. Behind a balancer it must be longer than "
        "the balancer's own (AWS 60 s, Google 600 s). Without free descriptors idle connections are closed "
        "earlier, longest idle first.",
        unit="s",
        minimum=1,
    )
    address_tcp_connections: int = setting(
        4096,
        "Maximum TCP connections from one address, WebSockets not counted; an IPv6 /64 is one address. At "
        "most a quarter of the descriptors. Further connections are closed. 0: no limit.",
        unit="connections",
        minimum=0,
    )
    descriptor_reserve: int = setting(
        256,
        "Descriptors reserved for the node itself, at most a quarter of its limit. When only these are free, "
        "a new connection replaces an idle one, or is closed.",
        unit="descriptors",
        minimum=0,
    )
    handshakes: int = setting(
        256, "Maximum WebSocket handshakes in progress; others wait.", unit="handshakes", minimum=1
    )
    handshake_queue: int = setting(
        4096, "Maximum WebSocket handshakes that wait; beyond it 503.", unit="handshakes", minimum=0
    )
    handshake_wait_s: float = setting(
        5.0, "Maximum waiting time of a WebSocket handshake; after it 503.", unit="s", minimum=0.1
    )
    requests_at_once: int = setting(
        8,
        "Maximum REST requests of one project, or of one address without a key, in progress; a quarter of "
        "that of one user, device or project key. Others wait. 0: no limit.",
        unit="requests",
        minimum=0,
    )
    request_bodies_bytes: int = setting(
        64 * MIB,
        "Maximum memory of request bodies, over all requests; beyond it 503.",
        unit="bytes",
        minimum=4 * MIB,
    )
    body_timeout_s: float = setting(5.0, "Maximum time for a request body.", unit="s", minimum=0.1)
    request_line_bytes: int = setting(
        128 * KIB,
        "Maximum length of a request line, and so of a query.",
        unit="bytes",
        minimum=8 * KIB,
    )
    response_bytes: int = setting(
        64 * MIB,
        "Maximum memory of responses that clients have not read; beyond it 503. One project may use half.",
        unit="bytes",
        minimum=4 * MIB,
    )
    response_bytes_per_principal: int = setting(
        8 * MIB,
        "Maximum memory of unread responses of one user, device or project key, or of one address without a "
        "key; beyond it 503.",
        unit="bytes",
        minimum=MIB,
    )
    response_stall_s: float = setting(
        30.0,
        "Maximum time in which a client reads nothing of a response; after it the connection is closed.",
        unit="s",
        minimum=0.1,
    )
    response_min_bytes_per_s: int = setting(
        4 * KIB,
        "Minimum rate at which a client must read a response after the first response_stall_s.",
        unit="bytes/s",
        minimum=1,
    )
    sorted_lists: int = setting(
        8,
        "Maximum session lists that are sorted in files at one time; beyond it 503.",
        unit="lists",
        minimum=1,
    )
    sorted_lists_per_project: int = setting(
        2,
        "Maximum session lists of one project that are sorted in files at one time; beyond it 503.",
        unit="lists",
        minimum=1,
    )
    sorted_list_s: float = setting(
        120.0, "Maximum time to read a session list that is sorted in a file.", unit="s", minimum=1
    )
    principal_cache_entries: int = setting(
        20_000,
        "Maximum keys whose principal is cached, and maximum cached users, homes and devices each.",
        unit="keys",
        minimum=0,
    )
    default_project: int | None = setting(
        None,
        "Project of commands without --project, and of the session APIs if the host (project_hosts) does "
        "not tell it.",
        minimum=1,
    )
    project_hosts: str = setting(
        "",
        "Projects by the Host of the request, for session APIs without projects: "
        "a.example.com=3,b.example.com=4. A host with a port applies to that port only.",
    )
    cookie_origins: str = setting(
        "",
        "Origins, besides the service's own, whose pages may use a session's cookie for requests and "
        "WebSockets: https://app.example.com,https://b.example.com. Browsers send the cookie only from the "
        "same site.",
    )
    log_level: LogLevel = setting("info", "Minimum level that is logged.")
    log_format: LogFormat = setting(
        "auto", "json: one object a line; console: for reading; auto: console on a terminal, else json."
    )
