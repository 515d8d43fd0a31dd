"""Repositories of logins: limits of attempts, login tokens, and logins of devices.

Limits hold for all nodes together. An attempt leases a place in each of its limits before it is made, so that
attempts at once are limited like a sequence. A failed attempt is counted; any other one releases its places.
Places that cannot be released, because Redis or the node is down, expire.

Attempts for an account are counted by network, and together for all networks without a login to the account
lately: a stranger locks out strangers only. A limit has two keys: the counter, a hash of `n` and `last` (ms,
by the clock of Redis), and the leases, a sorted set with their ends as scores.

A login token lets a user log in once, within its lifetime. It is stored as a hash. Logins of devices are what
the view of a node session shows (spec 002).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from homewire.auth.tokens import SECRET_BYTES, token_hash
from homewire.errors import TooManyRequests
from homewire.store.database import Database, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.script import changing, lua, removing
from homewire.users.store import NOTE_FAILED_LOGIN

BUSY_MS: Final = 1_000
"""When to try again if only attempts without a result are in the way."""
IN_A_ROW: Final = 100
"""Wrong attempts in a row after which no delay is long enough (NIST 800-63B, 5.2.2)."""
MAX_NETWORKS: Final = 16
"""Networks that are remembered for an account: those of the latest logins."""
KNOWN_MS: Final = 90 * 86_400_000
"""How long a network is remembered."""
TAKE_ATTEMPT: Final = changing(lua(__package__, "take_attempt", BUSY_MS=BUSY_MS, IN_A_ROW=IN_A_ROW))
COUNT_ATTEMPT: Final = changing(lua(__package__, "count_attempt"))
RELEASE_ATTEMPT: Final = removing(lua(__package__, "release_attempt"))
TRUST_NETWORK: Final = changing(
    lua(__package__, "trust_network", MAX_NETWORKS=MAX_NETWORKS, KNOWN_MS=KNOWN_MS)
)
CREATE_LOGIN_TOKEN: Final = changing(lua(__package__, "create_login_token"))
REDEEM_LOGIN_TOKEN: Final = removing(lua(__package__, "redeem_login_token"))

HASH_DIGITS: Final = 32
LEASE_MS: Final = 30_000
"""How long an attempt without a result holds its places: longer than the longest request."""
LIMITS: Final = (
    "account_attempts",
    "unknown_network_attempts",
    "address_attempts",
    "account_messages",
    "recipient_messages",
    "address_messages",
    "project_sms_per_day",
    "user_passwords",
    "user_invitations",
)
"""The settings that are limits of attempts, for the metrics."""


class Delays(NamedTuple):
    """The delay before the next attempt beyond a limit. It doubles with each failed attempt."""

    first_ms: int
    longest_ms: int


NO_DELAYS: Final = Delays(0, 0)
"""A limit stays reached until its window ends."""


@dataclass(frozen=True, slots=True)
class AttemptLimit:
    """How many attempts one subject has in a window."""

    setting: str
    """The name of the limit."""
    max_attempts: int
    """0: no limit."""
    subject: str
    """A network, or the name of an account."""
    window_ms: int
    """How long attempts count: from the first one on, or with delays from the last one on."""
    delays: Delays = NO_DELAYS


class Account(NamedTuple):
    """The account of an attempt, and the network of the client."""

    name: str
    network: str


@dataclass(frozen=True, slots=True)
class AttemptLease:
    """The places of one attempt."""

    project_id: int
    attempt_id: str
    allowances: tuple[AttemptLimit, ...]
    """The limits that are not 0."""


class Attempts:
    """Counts attempts of a project."""

    def __init__(self, database: Database, refusals: Counter[str]) -> None:
        """`refusals` is where it counts how often each limit refused on this node."""
        self._database = database
        self._refusals = refusals
        refusals.update(dict.fromkeys(LIMITS, 0))

    async def lease(self, project_id: int, allowances: Sequence[AttemptLimit]) -> AttemptLease:
        """Lease a place for an attempt, before it is made: of many at once no more than the limit get one.

        Raises TooManyRequests naming the setting whose limit was reached (no place is leased then), and
        UnknownRecord without the project.
        """
        limited = tuple(each for each in allowances if each.max_attempts > 0)
        lease = AttemptLease(project_id, secrets.token_hex(8), limited)
        if not limited:
            return lease
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            TAKE_ATTEMPT,
            slot,
            _counters_and_leases(slot, limited),
            [
                lease.attempt_id,
                LEASE_MS,
                *(number for each in limited for number in (each.max_attempts, *each.delays)),
            ],
        )
        if answer[0] == "limit":
            reached = limited[int(answer[1])]
            self._refusals[reached.setting] += 1
            seconds = max(1, -(-int(answer[2]) // 1000))
            raise TooManyRequests(reached.setting, seconds, most=reached.max_attempts)
        require_ok(answer, project=project_id)
        return lease

    async def count(self, lease: AttemptLease) -> None:
        """The attempt was wrong: it counts."""
        if lease.allowances:
            slot = ProjectSlot(lease.project_id)
            windows = [(each.window_ms, int(each.delays != NO_DELAYS)) for each in lease.allowances]
            answer = await self._database.change(
                COUNT_ATTEMPT,
                slot,
                _counters_and_leases(slot, lease.allowances),
                [lease.attempt_id, *(number for each in windows for number in each)],
            )
            require_ok(answer, project=lease.project_id)

    async def release(self, lease: AttemptLease) -> None:
        """The attempt was not wrong: its places are free. Doing that twice is harmless."""
        if lease.allowances:
            slot = ProjectSlot(lease.project_id)
            names = [slot.attempt_leases(each.setting, _hash(each.subject)) for each in lease.allowances]
            answer = await self._database.change(RELEASE_ATTEMPT, slot, names, [lease.attempt_id])
            if answer != ["unknown", "project"]:
                require_ok(answer)

    async def is_known_network(self, project_id: int, account: Account) -> bool:
        """Whether there was a login to the account from this network lately."""
        known = ProjectSlot(project_id).known_networks(_hash(account.name))
        return await self._database.read("ZSCORE", known, _hash(account.network)) is not None

    async def trust(self, project_id: int, account: Account, allowances: Sequence[AttemptLimit]) -> None:
        """The account's owner is at this network: what was wrong before is forgotten in these limits."""
        slot = ProjectSlot(project_id)
        counters = [slot.attempts(each.setting, _hash(each.subject)) for each in allowances]
        answer = await self._database.change(
            TRUST_NETWORK,
            slot,
            [slot.known_networks(_hash(account.name)), *counters],
            [_hash(account.network)],
        )
        require_ok(answer, project=project_id)


def _counters_and_leases(slot: ProjectSlot, allowances: Sequence[AttemptLimit]) -> list[str]:
    names: list[str] = []
    for each in allowances:
        subject = _hash(each.subject)
        names += slot.attempts(each.setting, subject), slot.attempt_leases(each.setting, subject)
    return names


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:HASH_DIGITS]


MAX_LOGIN_TOKENS: Final = 20
"""Valid login tokens of one user. One more replaces the one that expires first."""
# The token names its user, whose tokens are one Redis key. Keys of the API never have this shape.
_SHAPE: Final = re.compile(r"v1\.([1-9][0-9]{0,15})\.([1-9][0-9]{0,15})\.[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A parsed login token, which was not looked up yet."""

    project_id: int
    user_id: int
    hash: str
    """SHA-256 of the whole token, 64 hex digits."""


class LoginTokens:
    """The login tokens of the users of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: int, user_id: int, lifetime_ms: int) -> tuple[str, int]:
        """A new token, which is not stored, and its expiry in ms since 1970. Raises UnknownRecord."""
        token = f"v1.{project_id}.{user_id}.{secrets.token_urlsafe(SECRET_BYTES)}"
        slot, now = ProjectSlot(project_id), self._database.now_ms()
        expires_ms = now + lifetime_ms
        answer = await self._database.change(
            CREATE_LOGIN_TOKEN,
            slot,
            [slot.user(user_id), slot.user_login_tokens(user_id)],
            [token_hash(token), now, expires_ms, MAX_LOGIN_TOKENS],
        )
        require_ok(answer, project=project_id, user=user_id)
        return token, expires_ms

    async def redeem(self, token: LoginToken) -> bool:
        """Spend a token. Returns whether it was valid: of several requests at once, only one succeeds."""
        slot = ProjectSlot(token.project_id)
        answer = await self._database.change(
            REDEEM_LOGIN_TOKEN,
            slot,
            [slot.user_login_tokens(token.user_id)],
            [token.hash, self._database.now_ms()],
        )
        return answer[0] == "ok"


def parse_login_token(token: str) -> LoginToken | None:
    """A login token, parsed without a look-up; None for a malformed one."""
    shape = _SHAPE.fullmatch(token)
    return LoginToken(int(shape[1]), int(shape[2]), token_hash(token)) if shape else None


class Logins(NamedTuple):
    """The times of the last logins, in ms since 1970; 0: never."""

    last_ms: int
    last_failed_ms: int


class NodeLogins:
    """The logins of devices. The script that opens a session notes successful ones."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, project_id: int, device_id: int) -> Logins | None:
        """The logins of a device; None if there is no such device."""
        record = await self._database.read_hash(ProjectSlot(project_id).device(device_id))
        if not record:
            return None
        return Logins(int(record.get("last_login", 0)), int(record.get("last_failed_login", 0)))

    async def note_failed(self, project_id: int, device_id: int) -> None:
        """Note a failed login as this device. An unknown id takes as long, and changes nothing."""
        slot = ProjectSlot(project_id)
        await self._database.change(
            NOTE_FAILED_LOGIN, slot, [slot.device(device_id)], [self._database.now_ms()]
        )
