"""Passwords: argon2id, on threads, because one takes some 36 ms of a core and 19 MiB.

Each core hashes one password at a time. The others wait in lanes: logins before changes, and changes before
registrations, which can be repeated later. Within a lane the projects take turns, and a project has a bounded
number of places: a flood delays the project's own users, and those of others by one turn at most.

Guessable passwords are refused: those that contain the name of the user, and some 30,000 common ones of
zxcvbn. Its estimates are not used: a password that is made for it takes 0.5 s of a core.
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
"""Maximum number of passwords that wait in a lane, for each core."""
MAX_PROJECT_WAITING: Final = 64
"""Maximum number of a project's passwords in a lane, unless a setting says otherwise."""
WAIT_S: Final = 4.0
"""Maximum time to wait for a turn."""
NICENESS: Final = 5
"""Added to the niceness of the threads: events go before passwords, which still get a quarter of a busy
core."""
LIMIT: Final = "project_passwords"
"""The setting that bounds the passwords of one project in a lane."""
# OWASP's second choice for argon2id: 2 passes over 19 MiB on one lane.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
_DUMMY_HASH: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""A hash with the parameters of `_HASHER` that no password has."""

Result = TypeVar("Result")


class Lane(Enum):
    """The purpose of hashing a password, the most urgent first."""

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
        """`project_waiting`: passwords of one project in a lane; 0: any number. `refusals` counts how often
        that limit refused one."""
        cores = usable_cores()
        self._refusals = refusals
        refusals[LIMIT] += 0
        self._refused = 0
        self._threads = ThreadPoolExecutor(cores, "passwords", _lower_priority)
        self._free = cores
        self._lanes = {lane: _Queue(cores * MAX_WAITING, project_waiting) for lane in Lane}

    async def hash(self, password: str, project_id: int = 0, lane: Lane = Lane.REGISTRATION) -> str:
        """The argon2id hash of a new password. Raises InvalidInput for a password of a wrong length."""
        secret = check_length(password)
        return await self._in_turn(lane, project_id, lambda: _HASHER.hash(secret))

    async def verify(self, stored: str, password: str, project_id: int = 0, lane: Lane = Lane.LOGIN) -> bool:
        """Whether `password` has the hash `stored`. With an empty hash the answer takes as long."""
        given = password[: MAX_LENGTH + 1]
        return await self._in_turn(lane, project_id, lambda: _matches(stored or _DUMMY_HASH, given))

    @staticmethod
    def is_outdated(stored: str) -> bool:
        """Whether a hash has other parameters than new ones."""
        return _HASHER.check_needs_rehash(stored)

    def metrics(self) -> dict[str, int]:
        """For the metrics."""
        return {"passwords_refused": self._refused}

    async def _in_turn(self, lane: Lane, project_id: int, work: Callable[[], Result]) -> Result:
        await self._wait(lane, project_id)
        running = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # The core is busy until then, even if the request was cancelled.
        running.add_done_callback(lambda _done: self._next())
        return await asyncio.shield(running)

    async def _wait(self, lane: Lane, project_id: int) -> None:
        """Wait for a core."""
        queue = self._lanes[lane]
        if self._free and not any(self._lanes.values()):
            self._free -= 1
            return
        if queue.is_full:
            self._refused += 1
            raise Unavailable(problem="too many passwords wait to be checked")
        if queue.is_full_for(project_id):
            self._refusals[LIMIT] += 1
            raise TooManyRequests(LIMIT, most=queue.project_capacity)
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
                self._refused += 1
                raise Unavailable(problem="too many passwords wait to be checked") from error
            raise

    def _next(self) -> None:
        """A core is free: give it to the next password."""
        for lane in Lane:
            turn = self._lanes[lane].next()
            if turn is not None:
                turn.set_result(None)
                return
        self._free += 1


class _Queue:
    """The passwords that wait in one lane, by project; the projects take turns."""

    def __init__(self, capacity: int, project_capacity: int) -> None:
        self.project_capacity = project_capacity
        self._capacity = capacity
        self._size = 0
        self._waiting: OrderedDict[int, deque[asyncio.Future[None]]] = OrderedDict()

    def __bool__(self) -> bool:
        return self._size > 0

    @property
    def is_full(self) -> bool:
        return self._size >= self._capacity

    def is_full_for(self, project_id: int) -> bool:
        return 0 < self.project_capacity <= len(self._waiting.get(project_id, ()))

    def add(self, project_id: int, turn: asyncio.Future[None]) -> None:
        self._waiting.setdefault(project_id, deque()).append(turn)
        self._size += 1

    def remove(self, project_id: int, turn: asyncio.Future[None]) -> None:
        """Remove a turn that still waits."""
        waiting = self._waiting.get(project_id)
        if waiting is not None and turn in waiting:
            waiting.remove(turn)
            self._size -= 1
            if not waiting:
                del self._waiting[project_id]

    def next(self) -> asyncio.Future[None] | None:
        """Take the first turn of the next project, which becomes the last project."""
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
    """A new password as the bytes that are hashed. Raises InvalidInput for a password of a wrong length.

    It is in the form NFC (RFC 8265, section 4.2): one keyboard sends é as one character, another as two.
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


def _lower_priority() -> None:
    """Lower the priority of this thread: on Linux each thread has its own."""
    if sys.platform == "linux":
        os.nice(NICENESS)


def _matches(stored: str, password: str) -> bool:
    # Older hashes are of the password as it was typed.
    forms = dict.fromkeys((unicodedata.normalize("NFC", password), password))
    return any(_is_hash_of(stored, form) for form in forms)


def _is_hash_of(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, password.encode("utf-8", "replace"))
    except (VerificationError, InvalidHashError):
        return False


async def reject_guessable(password: str, own: Iterable[str | None], field: str = "password") -> None:
    """Raise InvalidInput (PASSWORD_TOO_WEAK) for a password that is easy to guess.

    `own`: name and e-mail address of the user.
    """
    given = password.casefold().strip()
    if len(set(given)) < 2:
        raise _too_weak(field, "must have different characters")
    if _same_spelling(given) in {_same_spelling(text) for each in own if each for text in _name_parts(each)}:
        raise _too_weak(field, "must not be your name or e-mail address")
    # Reading the list takes 60 ms, once.
    if given in await asyncio.to_thread(_common):
        raise _too_weak(field, "is a common password")


def _name_parts(text: str) -> tuple[str, str]:
    """A name or an address, and its part before the @."""
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
