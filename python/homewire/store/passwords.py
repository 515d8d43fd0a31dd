"""Passwords: argon2id, on threads, because one takes some 36 ms of a core and 19 MiB."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from homewire.errors import InvalidInput, Unavailable

MIN_LENGTH: Final = 8
MAX_LENGTH: Final = 256
WAITING: Final = 64
"""Passwords that wait for each core, at most: some 2.3 s. Who comes then had better come again."""
# OWASP's second choice for argon2id: 2 passes over 19 MiB on one lane.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)
_NOBODYS: Final = (
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""A hash with the parameters of `_HASHER` that is no password's."""


class Passwords:
    """Hashes and verifies, at most one at a time for each core. Raises Unavailable when too many wait."""

    def __init__(self) -> None:
        cores = os.cpu_count() or 1
        self._turns = asyncio.Semaphore(cores)
        self._most = cores * (1 + WAITING)
        self._here = 0

    async def hash(self, password: str) -> str:
        """The argon2id hash of a new password. Raises InvalidInput for one of an impossible length."""
        if len(password) < MIN_LENGTH:
            raise InvalidInput(
                "password", f"must have at least {MIN_LENGTH} characters", reason="PASSWORD_TOO_SHORT"
            )
        if len(password) > MAX_LENGTH:
            raise InvalidInput("password", f"must have at most {MAX_LENGTH} characters")
        try:
            secret = password.encode()
        except UnicodeEncodeError:
            raise InvalidInput("password", "is not valid Unicode") from None
        async with self._turn():
            return await asyncio.to_thread(_HASHER.hash, secret)

    async def verify(self, stored: str, password: str) -> bool:
        """Whether `password` is the one that was hashed to `stored`. Where nothing is stored, the answer
        takes as long."""
        async with self._turn():
            return await asyncio.to_thread(_matches, stored or _NOBODYS, password[: MAX_LENGTH + 1])

    @staticmethod
    def is_outdated(stored: str) -> bool:
        """Whether a hash was made with other parameters than new ones are."""
        return _HASHER.check_needs_rehash(stored)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._here >= self._most:
            raise Unavailable(problem="too many passwords wait to be looked at")
        self._here += 1
        try:
            async with self._turns:
                yield
        finally:
            self._here -= 1


def _matches(stored: str, password: str) -> bool:
    try:
        return _HASHER.verify(stored, password.encode("utf-8", "replace"))
    except (VerificationError, InvalidHashError):
        return False
