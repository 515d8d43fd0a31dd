"""Settings of accounts: sessions, logins, verification, and what may be stored."""

from __future__ import annotations

from dataclasses import dataclass

from homewire.settings.fields import GIB, KIB, MIB, setting


@dataclass(frozen=True, kw_only=True)
class QuotasSection:
    """What homes, users and projects may store (docs/quotas.md)."""

    homes_per_user: int = setting(
        1_000, "Maximum homes that one user may be a member of. 0: no limit.", unit="homes", minimum=0
    )
    values_per_owner: int = setting(
        100_000, "Maximum values of one home or device; beyond it 403.", unit="values", minimum=1
    )
    value_bytes_per_owner: int = setting(
        64 * MIB,
        "Maximum size of all values of one home or device; beyond it 403. All may be in memory at once.",
        unit="bytes",
        minimum=128 * KIB,
    )
    platform_event_types: bool = setting(
        False,
        "Whether clients may send event types that begin and end with `_`. They are reserved for the "
        "platform, so that receivers can trust `_deviceConnected_`; otherwise such events are 403.",
    )
    entities_per_home: int = setting(
        10_000, "Maximum entities of one home; beyond it 403.", unit="entities", minimum=1
    )
    project_bytes: int = setting(
        4 * GIB,
        "Maximum bytes that one project stores, as docs/quotas.md counts them; beyond it 403. 0: no limit.",
        unit="bytes",
        minimum=0,
    )
    project_records: int = setting(
        5_000_000,
        "Maximum records that one project stores; beyond it 403. 0: no limit.",
        unit="records",
        minimum=0,
    )
    user_bytes: int = setting(
        256 * MIB,
        "Maximum bytes that one user stores: sessions, and everything in the homes that the user created. "
        "Beyond it 403. 0: no limit.",
        unit="bytes",
        minimum=0,
    )
    user_records: int = setting(
        250_000,
        "Maximum records that one user stores; beyond it 403. 0: no limit.",
        unit="records",
        minimum=0,
    )


@dataclass(frozen=True, kw_only=True)
class AccountsSection:
    """Lifetimes of sessions and tokens, and limits of logins and messages."""

    session_ttl_s: float = setting(
        30 * 86400.0,
        "Lifetime of an unused session, and of its user key. Each use extends it.",
        unit="s",
        minimum=1,
    )
    ended_sessions: int = setting(
        100,
        "Maximum ended sessions of a user or device that stay readable for 30 days; the oldest are deleted. "
        "0: no limit.",
        unit="sessions",
        minimum=0,
    )
    session_absolute_s: float = setting(
        365 * 86400.0,
        "Maximum lifetime of a session, however often it is used. 0: no maximum.",
        unit="s",
        minimum=0,
    )
    provisioning_ttl_s: float = setting(
        3600.0, "Lifetime of a device's provisioning token.", unit="s", minimum=1
    )
    code_lifetime_s: float = setting(
        600.0,
        "Lifetime of a sign-in code sent by SMS.",
        unit="s",
        minimum=0.001,
        maximum=7 * 86400,
    )
    verification_lifetime_s: float = setting(
        86400.0,
        "Lifetime of the link that verifies an e-mail address.",
        unit="s",
        minimum=0.001,
        maximum=30 * 86400,
    )
    address_registrations: int = setting(
        20,
        "Maximum unverified registrations of one e-mail address; the oldest is deleted for a new one.",
        unit="registrations",
        minimum=1,
        maximum=100,
    )
    unverified_user_s: float = setting(
        7 * 86400.0,
        "Time after which a registered user without a verified address or number is deleted.",
        unit="s",
        minimum=1,
    )
    invitation_s: float = setting(
        30 * 86400.0,
        "Time after which an invited user that never registered is removed from the homes.",
        unit="s",
        minimum=1,
    )
    password_reset_lifetime_s: float = setting(
        3600.0,
        "Lifetime of a link that resets a password.",
        unit="s",
        minimum=0.001,
        maximum=7 * 86400,
    )
    login_token_lifetime_s: float = setting(
        600.0,
        "Lifetime of a login token, which works once.",
        unit="s",
        minimum=0.001,
        maximum=7 * 86400,
    )
    recent_login_s: float = setting(
        300.0,
        "Time after a login in which a user may set a new password without the present one.",
        unit="s",
        minimum=0.001,
        maximum=86400,
    )
    attempts_window_s: float = setting(
        600.0,
        "Window of the limits of addresses, messages and new passwords. It begins with the first attempt "
        "that counts. The limits hold on all nodes together, per project; beyond one 429.",
        unit="s",
        minimum=0.1,
        maximum=86400,
    )
    account_attempts: int = setting(
        10,
        "Consecutive wrong passwords and codes for one account from one network (/24, of IPv6 /64), before "
        "further attempts are delayed (attempts_delay_s). 0: no limit.",
        unit="attempts",
        minimum=0,
    )
    unknown_network_attempts: int = setting(
        20,
        "Consecutive wrong passwords and codes for one account from all unknown networks: those without a "
        "login or password reset of the account in 90 days. Known networks are not delayed. 0: no limit.",
        unit="attempts",
        minimum=0,
    )
    attempts_delay_s: float = setting(
        30.0,
        "First delay when account_attempts or unknown_network_attempts is reached. It doubles with each "
        "wrong attempt, and a correct one ends it. After 100 consecutive wrong attempts all are refused, "
        "until no attempt was wrong for twice attempts_delay_max_s, at least a day.",
        unit="s",
        minimum=0.1,
        maximum=86400,
    )
    attempts_delay_max_s: float = setting(
        86_400.0, "Maximum delay between two attempts.", unit="s", minimum=0.1, maximum=30 * 86400
    )
    address_attempts: int = setting(
        100,
        "Maximum wrong passwords, codes and tokens from one address; an IPv6 /64 is one address. Behind a "
        "balancer set trusted_proxies. 0: no limit.",
        unit="attempts",
        minimum=0,
    )
    account_messages: int = setting(
        5,
        "Maximum e-mails and SMS to one address or number that are requested from one network (/24, of IPv6 "
        "/64). Invitations count separately; beyond it members are added without an e-mail. 0: no limit.",
        unit="messages",
        minimum=0,
    )
    recipient_messages: int = setting(
        20,
        "Maximum e-mails and SMS to one address or number that are requested from all networks without a "
        "login to the account in 90 days. 0: no limit.",
        unit="messages",
        minimum=0,
    )
    project_sms_per_day: int = setting(
        1_000,
        "Maximum SMS of one project in a day. A quarter is reserved for users at networks where they logged "
        "in lately. One number gets a tenth, or recipient_messages if that is more. 0: no limit.",
        unit="SMS",
        minimum=0,
    )
    user_invitations: int = setting(
        20,
        "Maximum members that one user adds to homes in a day. Project keys are not limited. 0: no limit.",
        unit="members",
        minimum=0,
    )
    address_messages: int = setting(
        200,
        "Maximum registrations, e-mails and SMS that are requested from one address. 0: no limit.",
        unit="messages",
        minimum=0,
    )
    user_passwords: int = setting(
        5, "Maximum new passwords that one user sets. 0: no limit.", unit="passwords", minimum=0
    )
    project_passwords: int = setting(
        64,
        "Maximum passwords of one project that wait on one node to be verified; as many may wait to be "
        "changed, and as many for registrations. Logins go first, and projects take turns. Beyond it 429. "
        "0: no limit.",
        unit="passwords",
        minimum=0,
    )
