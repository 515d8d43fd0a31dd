"""Settings of what leaves the service: webhooks, e-mails and SMS."""

# ruff: noqa: RUF009  (a field made by `setting` is as immutable as one made by `dataclasses.field`)
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from homewire.settings.fields import KIB, MIB, SmtpTls, setting


@dataclass(frozen=True, kw_only=True)
class WebhooksSection:
    """How webhooks are called, and how long a delivery is retried."""

    webhook_private_addresses: bool = setting(
        False,
        "Whether webhooks may have private, loopback, link-local and other addresses that are not public.",
    )
    webhook_timeout_s: float = setting(
        10.0, "Maximum time of a request to a webhook, connecting included.", unit="s", minimum=0.1
    )
    webhook_connect_s: float = setting(5.0, "Maximum time to connect to a webhook.", unit="s", minimum=0.1)
    webhook_requests: int = setting(
        128, "Maximum concurrent requests of one node to webhooks.", unit="requests", minimum=1
    )
    webhook_module_requests: int = setting(
        8,
        "Maximum concurrent requests to one webhook. With 1 events arrive in order, except retries.",
        minimum=1,
    )
    webhook_backoff_s: float = setting(
        1.0, "Delay before the first retry of a delivery; it doubles with each retry.", unit="s", minimum=0.01
    )
    webhook_backoff_max_s: float = setting(
        600.0, "Maximum delay between two tries of a delivery.", unit="s", minimum=0.01
    )
    webhook_tries: int = setting(
        15, "Number of tries after which a delivery becomes a dead letter.", unit="tries", minimum=1
    )
    webhook_age_s: float = setting(
        86_400.0, "Age at which a delivery becomes a dead letter.", unit="s", minimum=1
    )
    webhook_breaker_failures: int = setting(
        10,
        "Consecutive failures after which the circuit breaker of a webhook opens.",
        unit="failures",
        minimum=1,
    )
    webhook_breaker_s: float = setting(
        15.0,
        "First interval in which an open circuit breaker sends nothing. Then one delivery probes the "
        "webhook; each failed probe doubles the interval, up to 16 times.",
        unit="s",
        minimum=0.1,
    )
    webhook_waiting_bytes: int = setting(
        16 * MIB,
        "Maximum size of the events that wait for one webhook; further events become dead letters.",
        unit="bytes",
        minimum=128 * KIB,
    )
    webhook_dead_letters: int = setting(
        1000,
        "Maximum dead letters stored for one webhook; the oldest are deleted.",
        unit="letters",
        minimum=1,
    )
    webhook_lease_s: float = setting(
        10.0,
        "Time without a sign of life after which other nodes take over a node's deliveries.",
        unit="s",
        minimum=1,
    )


@dataclass(frozen=True, kw_only=True)
class MessagesSection:
    """How e-mails and SMS are sent, and how long that is retried."""

    secret_key: str | None = setting(
        None,
        "Secret, at least 32 random characters, that encrypts stored secrets (keys of smart modules, "
        "passwords of mail servers). It must be the same on all nodes and for commands. Unset: it is "
        "generated once, into secret.key in the data directory.",
        secret=True,
    )
    smtp_host: str | None = setting(
        None,
        "SMTP server for e-mails. Unset: e-mails are stored, and `homewire messages` shows them.",
    )
    smtp_port: int = setting(587, "TCP port of the SMTP server.", minimum=1, maximum=65535)
    smtp_tls: SmtpTls = setting(
        "starttls", "TLS to the SMTP server: tls from the first byte, starttls, or none."
    )
    smtp_user: str | None = setting(None, "User name at the SMTP server. Unset: no authentication.")
    smtp_password: str | None = setting(None, "Password at the SMTP server.", secret=True)
    smtp_from: str | None = setting(
        None,
        "Sender of e-mails: home@example.com or Home <home@example.com>. Required with smtp_host.",
    )
    smtp_ca: Path | None = setting(
        None, "Certificates, PEM, to trust for the SMTP server instead of the public authorities."
    )
    sms_url: str | None = setting(
        None,
        "URL that SMS are posted to, signed, as JSON. Unset: SMS are stored, and `homewire messages` shows "
        "them.",
        secret=True,
    )
    sms_key: str | None = setting(
        None,
        "Secret, at least 16 characters, that signs the requests to sms_url. Required with sms_url.",
        secret=True,
    )
    message_attempt_s: float = setting(
        20.0, "Maximum time of one attempt to send an e-mail or SMS.", unit="s", minimum=0.1
    )
    message_tries: int = setting(
        20, "Number of tries after which an e-mail or SMS becomes a dead letter.", unit="tries", minimum=1
    )
    message_backoff_s: float = setting(
        1.0,
        "Delay before the first retry of an e-mail or SMS; it doubles with each, up to five minutes.",
        unit="s",
        minimum=0.1,
    )
    message_age_s: float = setting(
        3600.0,
        "Age at which an unsent e-mail or SMS becomes a dead letter.",
        unit="s",
        minimum=1,
    )
    sms_country_codes: str = setting(
        "",
        "Country calling codes that SMS are sent to: 49,43,1. Empty: all countries, without satellite and "
        "other special codes. A project may have its own list (`homewire project set`).",
    )
