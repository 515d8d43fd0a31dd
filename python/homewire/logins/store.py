"""How often something may be tried, on all nodes together: by an address, and for an account.

An attempt leases a place in each of its limits before it is made, so that many at once are no more than one
after the other. A wrong one is counted; every other one gives its place back. What cannot be given back,
because Redis or the node went away, ends with the lease.

Guesses for an account are counted by the network that they come from, and then for all networks where nobody
logged in to the account lately: so a stranger locks out strangers.

The scripts that count attempts. See `script.py` for what they answer.

Each limit has two keys: what was counted, a hash of `n` and, in ms of Redis' clock, `last`; and the leases
of attempts without a verdict, a sorted set with their ends as scores.

Login tokens: what a user enters with whom an operator, or their project's own server, let in. Each works
once and for a while, and is stored only as a hash.

Scripts of login tokens. See `script.py` for what they answer.

When devices logged in, and when that was tried in vain: what a node session tells of (spec 002).
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
"""How long an attempt without a verdict takes a place: longer than a request that waits for everything."""
LIMITS: Final = (
    "account_attempts",
    "stranger_attempts",
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
    """How long a limit that was reached keeps the next one waiting; it doubles with each that is wrong."""

    first_ms: int
    longest_ms: int


NO_DELAYS: Final = Delays(0, 0)
"""Until the window ends."""


@dataclass(frozen=True, slots=True)
class AttemptLimit:
    """How often one of something may try, in a window."""

    setting: str
    """The limit's name; what is counted, too."""
    max_attempts: int
    """0: as often as it likes."""
    subject: str
    """An address, or what an account is known by."""
    window_ms: int
    """How long what counts is remembered: from the first one on; with delays from the last one on."""
    delays: Delays = NO_DELAYS


class Account(NamedTuple):
    """What is guessed at, and from where."""

    name: str
    network: str


@dataclass(frozen=True, slots=True)
class AttemptLease:
    """The places of one attempt."""

    project_id: int
    attempt_id: str
    allowances: tuple[AttemptLimit, ...]
    """Those that have a limit."""


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
            raise TooManyRequests(reached.setting, seconds, max_attempts=reached.max_attempts)
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
        """Whether somebody logged in to an account from this network lately."""
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
"""Login tokens of one user that are good at the same time; with one more the one that expires first goes."""
# It names its user, whose tokens lie in one key. No key has this shape, so neither passes for the other.
_SHAPE: Final = re.compile(r"v1\.([1-9][0-9]{0,15})\.([1-9][0-9]{0,15})\.[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LoginToken:
    """Whose a login token says that it is: nothing is known of it yet."""

    project_id: int
    user_id: int
    hash: str
    """SHA-256 of the whole token, 64 hex digits."""


class LoginTokens:
    """The login tokens of the users of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: int, user_id: int, lifetime_ms: int) -> tuple[str, int]:
        """A new token, which is shown this once, and when its time is over in ms. Raises UnknownRecord."""
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
        """Whether the token is good. It is spent then: of many who try at once, one is told so."""
        slot = ProjectSlot(token.project_id)
        answer = await self._database.change(
            REDEEM_LOGIN_TOKEN,
            slot,
            [slot.user_login_tokens(token.user_id)],
            [token.hash, self._database.now_ms()],
        )
        return answer[0] == "ok"


def parse_login_token(token: str) -> LoginToken | None:
    """What a well-shaped login token says; None, without any look-up, for everything else."""
    shape = _SHAPE.fullmatch(token)
    return LoginToken(int(shape[1]), int(shape[2]), token_hash(token)) if shape else None


class Logins(NamedTuple):
    """The last ones, in ms since 1970; 0: never."""

    last_ms: int
    last_failed_ms: int


class NodeLogins:
    """Of the devices of a project. Those that succeeded are noted by the script that opens the session."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, project_id: int, device_id: int) -> Logins | None:
        """Those of a device; None if there is no such device."""
        record = await self._database.read_hash(ProjectSlot(project_id).device(device_id))
        if not record:
            return None
        return Logins(int(record.get("last_login", 0)), int(record.get("last_failed_login", 0)))

    async def note_failed(self, project_id: int, device_id: int) -> None:
        """Somebody tried in vain to log in as this device. For an unknown id as much is done, for nothing."""
        slot = ProjectSlot(project_id)
        await self._database.change(
            NOTE_FAILED_LOGIN, slot, [slot.device(device_id)], [self._database.now_ms()]
        )
