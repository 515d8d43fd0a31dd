"""What may be done only so often: guesses of passwords, codes and tokens, messages to people, new passwords.

`attempting` is around each guess, `rationed` around the others. Both lease places in their limits before
anything else is done, and say afterwards whether it counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from aiohttp import web

from homewire.api.accounts import milliseconds, remote_network
from homewire.api.context import Api
from homewire.errors import NotConfirmed, RequestError, StoreError, Unavailable
from homewire.model import Principal, PrincipalKind
from homewire.store.attempts import Allowance

Wrong = TypeVar("Wrong", bound=Exception)

_settling: Final[set[asyncio.Task[None]]] = set()
"""The loop itself would not keep them."""


class Attempt:
    """One attempt. Unless it is said to count, its places are given back."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = False

    def wrong(self, error: Wrong) -> Wrong:
        """This error, which tells that the attempt was wrong: it counts."""
        self.counts = True
        return error


@asynccontextmanager
async def attempting(
    api: Api, project_id: int, allowances: Sequence[Allowance], window_ms: int = 0
) -> AsyncIterator[Attempt]:
    """An attempt, made in the body; `raise attempt.wrong(…)` counts it, and nothing else does.

    The limits are for a time of `window_ms`; 0: that of attempts.

    Places are given back for whatever else ends the body: an error, a time-out, a request that is cancelled.
    If Redis is away then, the places are free when their lease ends (30 s). A wrong attempt that could not be
    counted is answered with that: nobody is told a verdict which does not count. Raises TooManyRequests.
    """
    attempts = api.store.attempts
    window_ms = window_ms or milliseconds(api.settings.attempts_window_s)
    lease = await attempts.take(project_id, allowances, window_ms)
    attempt = Attempt()
    try:
        yield attempt
    finally:
        if attempt.counts:
            await _surely(attempts.count(lease))
        else:
            # Else the lease ends by itself: what the body came to is more important.
            with suppress(Unavailable, StoreError):
                await _surely(attempts.give_back(lease))


@asynccontextmanager
async def rationed(
    api: Api, project_id: int, allowances: Sequence[Allowance], window_ms: int = 0
) -> AsyncIterator[None]:
    """What the body does counts, unless it certainly was not done. Raises TooManyRequests."""
    async with attempting(api, project_id, allowances, window_ms) as attempt:
        attempt.counts = True
        try:
            yield
        except NotConfirmed:
            raise
        except (RequestError, StoreError):
            attempt.counts = False
            raise


async def _surely(settling: Coroutine[Any, Any, None]) -> None:
    """Do this, even if the request is cancelled meanwhile."""
    task = asyncio.create_task(settling)
    _settling.add(task)
    task.add_done_callback(_settled)
    await asyncio.shield(task)


def _settled(task: asyncio.Task[None]) -> None:
    _settling.discard(task)
    if not task.cancelled():
        # Else asyncio says that nobody looked at it, when the request was cancelled.
        task.exception()


def guesses(api: Api, request: web.Request, account: str) -> tuple[Allowance, ...]:
    """Of whom a guess counts that is for an account."""
    settings = api.settings
    return (
        Allowance("address_attempts", settings.address_attempts, remote_network(request)),
        Allowance("account_attempts", settings.account_attempts, account.lower()),
    )


def token_guesses(api: Api, request: web.Request) -> tuple[Allowance, ...]:
    """Of whom the guess of a token counts, which names no account.

    Apart from guesses of passwords: those must not keep anybody of the same network from a link that was
    mailed to them.
    """
    whose = f"token {remote_network(request)}"
    return (Allowance("address_attempts", api.settings.address_attempts, whose),)


def messages_to(api: Api, request: web.Request, to: str) -> tuple[Allowance, ...]:
    """Of whom a message counts that somebody asks for, to an address or number."""
    settings = api.settings
    return (
        Allowance("address_messages", settings.address_messages, remote_network(request)),
        Allowance("account_messages", settings.account_messages, to.lower()),
    )


def invitations_to(api: Api, request: web.Request, caller: Principal, to: str) -> tuple[Allowance, ...]:
    """Of whom a mail counts that tells somebody they were added to a home.

    Counted apart: who invites must not use up what the invited may ask for. A project key stands for a
    server, which invites for many.
    """
    settings = api.settings
    allowances = [Allowance("account_messages", settings.account_messages, f"invitation {to.lower()}")]
    if caller.kind is PrincipalKind.USER:
        whose = f"invitation {remote_network(request)}"
        allowances.append(Allowance("address_messages", settings.address_messages, whose))
    return tuple(allowances)


def additions(api: Api, user_id: int) -> tuple[Allowance, ...]:
    """Of whom a new member of a home counts, within a day."""
    return (Allowance("user_invitations", api.settings.user_invitations, str(user_id)),)


def registrations(api: Api, request: web.Request) -> tuple[Allowance, ...]:
    """Of whom a registration counts that is refused because the address has a user: it tells that."""
    whose = f"registration {remote_network(request)}"
    return (Allowance("address_attempts", api.settings.address_attempts, whose),)


def password_changes(api: Api, user_id: int) -> tuple[Allowance, ...]:
    """Of whom a new password counts: each takes the machine as long as a login."""
    return (Allowance("user_passwords", api.settings.user_passwords, str(user_id)),)
