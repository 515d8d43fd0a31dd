"""Passwords: argon2id, on threads, because one takes some 36 ms of a core and 19 MiB.

At most one at a time for each core; the others wait, in lanes: logins go before changes, and those before
registrations, so that what can be repeated later keeps nobody out. Within a lane the projects take turns, and
one project has only so many places: its flood makes its own people wait, and nobody else's for longer than a
turn.

Passwords that are among the first which anybody tries: common ones, and what is known of their user.

The common ones are those of zxcvbn, some 30,000. Its estimates are not used: to make one of a password that
was chosen for it takes half a second of a core.
"""

from __future__ import annotations

import asyncio
import os
import sys
import unicodedata
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from functools import cache
from typing import Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from homewire.errors import InvalidInput, TooManyRequests, Unavailable

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 256
MAX_WAITING: Final = 256
"""Passwords that wait in a lane for each core, at most. Who comes then had better come again."""
MAX_PROJECT_WAITING: Final = 64
"""What a project may have in a lane unless a setting says otherwise."""
WAIT_S: Final = 4.0
"""How long one waits for its turn: longer than that no request waits for anything."""
LOWER: Final = 5
"""By so much the threads are nicer than the others: events go before passwords, which still get a quarter of
a busy core."""
LIMIT: Final = "project_passwords"
"""The setting that bounds what one project has in a lane."""
# OWASP's second choice for argon2id: 2 passes over 19 MiB on one lane.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
_DUMMY_HASH: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""A hash with the parameters of `_HASHER` that is no password's."""

Result = TypeVar("Result")


class Lane(Enum):
    """What a password is looked at for, the most urgent first."""

    LOGIN = "login"
    CHANGE = "change"
    REGISTRATION = "registration"


def usable_cores() -> int:
    """Cores that this process may run on: a container may have fewer than the machine."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Passwords:
    """Hashes and verifies, at most one at a time for each core.

    Raises TooManyRequests when a project has too many in a lane, and Unavailable when a lane is full or a
    turn did not come in time.
    """

    def __init__(self, project_waiting: int, refusals: Counter[str]) -> None:
        """`project_waiting`: how many one project may have in a lane; 0: any number. `refusals` is where it
        counts how often that was reached."""
        cores = usable_cores()
        self._refusals = refusals
        refusals[LIMIT] += 0
        self._turned_away = 0
        self._threads = ThreadPoolExecutor(cores, "passwords", _yield_to_others)
        self._free = cores
        self._lanes = {lane: _Queue(cores * MAX_WAITING, project_waiting) for lane in Lane}

    async def hash(self, password: str, project_id: int = 0, lane: Lane = Lane.REGISTRATION) -> str:
        """The argon2id hash of a new password. Raises InvalidInput for one of an impossible length."""
        secret = check_length(password)
        return await self._in_turn(lane, project_id, lambda: _HASHER.hash(secret))

    async def verify(self, stored: str, password: str, project_id: int = 0, lane: Lane = Lane.LOGIN) -> bool:
        """Whether `password` is the one that was hashed to `stored`. Where nothing is stored, the answer
        takes as long."""
        given = password[: MAX_LENGTH + 1]
        return await self._in_turn(lane, project_id, lambda: _matches(stored or _DUMMY_HASH, given))

    @staticmethod
    def is_outdated(stored: str) -> bool:
        """Whether a hash was made with other parameters than new ones are."""
        return _HASHER.check_needs_rehash(stored)

    def metrics(self) -> dict[str, int]:
        """For the metrics."""
        return {"passwords_refused": self._turned_away}

    async def _in_turn(self, lane: Lane, project_id: int, work: Callable[[], Result]) -> Result:
        await self._wait(lane, project_id)
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # The core is taken until then, whether or not anybody still waits for what comes of it.
        running.add_done_callback(lambda _done: self._next())
        return await asyncio.shield(running)

    async def _wait(self, lane: Lane, project_id: int) -> None:
        """Returns when a core is this one's."""
        queue = self._lanes[lane]
        if self._free and not any(self._lanes.values()):
            self._free -= 1
            return
        if queue.is_full:
            self._turned_away += 1
            raise Unavailable(problem="too many passwords wait to be looked at")
        if queue.is_full_for(project_id):
            self._refusals[LIMIT] += 1
            raise TooManyRequests(LIMIT, max_attempts=queue.most_of_project)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.add(project_id, turn)
        try:
            async with asyncio.timeout(WAIT_S):
                await turn
        except BaseException as error:
            queue.remove(project_id, turn)
            if turn.done() and not turn.cancelled():
                self._next()
            if isinstance(error, TimeoutError):
                self._turned_away += 1
                raise Unavailable(problem="too many passwords wait to be looked at") from error
            raise

    def _next(self) -> None:
        """A core is free: whose turn is it?"""
        for lane in Lane:
            turn = self._lanes[lane].next()
            if turn is not None:
                turn.set_result(None)
                return
        self._free += 1


class _Queue:
    """Those who wait in one lane, by project; the projects take turns."""

    def __init__(self, max_attempts: int, most_of_project: int) -> None:
        self.most_of_project = most_of_project
        self._most = max_attempts
        self._size = 0
        self._waiting: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()

    def __bool__(self) -> bool:
        return self._size > 0

    @property
    def is_full(self) -> bool:
        return self._size >= self._most

    def is_full_for(self, project_id: int) -> bool:
        return 0 < self.most_of_project <= len(self._waiting.get(project_id, ()))

    def add(self, project_id: int, turn: asyncio.Future[None]) -> None:
        self._waiting.setdefault(project_id, deque()).append(turn)
        self._size += 1

    def remove(self, project_id: int, turn: asyncio.Future[None]) -> None:
        """Whoever has had their turn is not there any more."""
        waiting = self._waiting.get(project_id)
        if waiting is not None and turn in waiting:
            waiting.remove(turn)
            self._size -= 1
            if not waiting:
                del self._waiting[project_id]

    def next(self) -> asyncio.Future[None] | None:
        """Take the first of the project whose turn it is, which is the last one's then."""
        while self._waiting:
            project_id, waiting = next(iter(self._waiting.items()))
            turn = waiting.popleft()
            self._size -= 1
            if waiting:
                self._waiting.move_to_end(project_id)
            else:
                del self._waiting[project_id]
            if not turn.done():
                return turn
        return None


def check_length(password: str) -> bytes:
    """A new password as it is hashed. Raises InvalidInput for one that cannot be.

    In the form NFC (RFC 8265, section 4.2): one keyboard sends é as one character, another as two.
    """
    password = unicodedata.normalize("NFC", password)
    if len(password) < MIN_LENGTH:
        raise InvalidInput(
            "password", f"must have at least {MIN_LENGTH} characters", reason="PASSWORD_TOO_SHORT"
        )
    if len(password) > MAX_LENGTH:
        raise InvalidInput("password", f"must have at most {MAX_LENGTH} characters")
    try:
        return password.encode()
    except UnicodeEncodeError:
        raise InvalidInput("password", "is not valid Unicode") from None


def _yield_to_others() -> None:
    """Have the kernel prefer the other threads to this one: on Linux each has a priority of its own."""
    if sys.platform == "linux":
        os.nice(LOWER)


def _matches(stored: str, password: str) -> bool:
    # As it was typed, too: older hashes are of that.
    forms = dict.fromkeys((unicodedata.normalize("NFC", password), password))
    return any(_is_hash_of(stored, form) for form in forms)


def _is_hash_of(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, password.encode("utf-8", "replace"))
    except (VerificationError, InvalidHashError):
        return False


async def reject_guessable(password: str, own: Iterable[str | None], field: str = "password") -> None:
    """Raise InvalidInput (PASSWORD_TOO_WEAK) for one that is too easy to guess.

    `own` is what others may know of the user: name and e-mail address.
    """
    given = password.casefold().strip()
    if len(set(given)) < 2:
        raise _too_weak(field, "must have different characters")
    if _same_spelling(given) in {_same_spelling(text) for each in own if each for text in _parts_of(each)}:
        raise _too_weak(field, "must not be your name or e-mail address")
    # Reading the list takes 60 ms, once.
    if given in await asyncio.to_thread(_common):
        raise _too_weak(field, "is among those that are tried first")


def _parts_of(text: str) -> tuple[str, str]:
    """A name or an address, and what stands before the @."""
    known = text.casefold()
    return known, known.partition("@")[0]


def _same_spelling(text: str) -> str:
    return "".join(each for each in text if each.isalnum())


def _too_weak(field: str, problem: str) -> InvalidInput:
    return InvalidInput(field, problem, reason="PASSWORD_TOO_WEAK")


@cache
def _common() -> frozenset[str]:
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # type: ignore[import-untyped]

    return frozenset(FREQUENCY_LISTS["passwords"])
