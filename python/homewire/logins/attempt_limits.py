"""Limits of attempts to log in, of tokens, of messages, and of new passwords.

A handler makes each attempt within `limited_attempt`, and each other action within `limited_action`. Both
lease a place in each limit before the body runs, and decide afterwards whether it counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from aiohttp import web

from homewire.auth.models import Principal, PrincipalKind
from homewire.errors import NotConfirmed, RequestError, StoreError, Unavailable
from homewire.limits.connections import network_of
from homewire.logins.store import Account, AttemptLimit, Delays
from homewire.rest.context import RestContext
from homewire.server.clients import client_address
from homewire.store.keys import DAY_MS
from homewire.timestamps import milliseconds

Wrong = TypeVar("Wrong", bound=Exception)

SMS_LEFT_FOR_KNOWN: Final = 4
"""1 in 4 of a project's SMS a day is reserved for users at networks where they logged in lately."""
SMS_OF_ONE_NUMBER: Final = 10
"""One number gets at most 1 in 10 of them, or `recipient_messages` if that is more."""

_running: Final[set[asyncio.Task[None]]] = set()
"""References to running tasks: the event loop keeps only weak ones."""


class Attempt:
    """One attempt. Unless it counts, its places are released."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = False

    def failed(self, error: Wrong) -> Wrong:
        """Count the attempt, and return the error to raise."""
        self.counts = True
        return error


@asynccontextmanager
async def limited_attempt(
    context: RestContext, project_id: int, allowances: Sequence[AttemptLimit]
) -> AsyncIterator[Attempt]:
    """The body makes an attempt; only `raise attempt.failed(…)` counts it.

    Any other end of the body releases the places: an error, a timeout, a cancelled request. If Redis is
    unreachable then, they are free when their lease ends (30 s). If a failed attempt cannot be counted, the
    answer is that error, so that no client learns a result that does not count. Raises TooManyRequests.
    """
    attempts = context.store.attempts
    lease = await attempts.lease(project_id, allowances)
    attempt = Attempt()
    try:
        yield attempt
    finally:
        if attempt.counts:
            await _shielded(attempts.count(lease))
        else:
            # Otherwise the lease expires. The result of the body is more important.
            with suppress(Unavailable, StoreError):
                await _shielded(attempts.release(lease))


@asynccontextmanager
async def login_attempt(
    context: RestContext, request: web.Request, project_id: int, name: str
) -> AsyncIterator[Attempt]:
    """An attempt to authenticate as an account; otherwise like `limited_attempt`.

    It is counted by account and network, and by account for all networks without a login to it lately. Beyond
    a limit, attempts are allowed one at a time, after delays that double. A body that ends without an error
    was a success: the network is remembered, and the failed attempts before it no longer count.
    """
    account = Account(name.lower(), subnet(request))
    limits = [_network_limit(context, account)]
    if not await context.store.attempts.is_known_network(project_id, account):
        limits.append(_other_networks_limit(context, account))
    by_address = AttemptLimit(
        "address_attempts", context.settings.address_attempts, remote_network(request), _window_ms(context)
    )
    async with limited_attempt(context, project_id, (by_address, *limits)) as attempt:
        yield attempt
    await trust(context, request, project_id, name)


async def trust(context: RestContext, request: web.Request, project_id: int, name: str) -> None:
    """The owner of an account authenticated: failed attempts of others do not block this network."""
    account = Account(name.lower(), subnet(request))
    limits = (_network_limit(context, account), _other_networks_limit(context, account))
    with suppress(Unavailable, StoreError):
        await _shielded(context.store.attempts.trust(project_id, account, limits))


def _network_limit(context: RestContext, account: Account) -> AttemptLimit:
    settings, subject = context.settings, f"{account.name} from {account.network}"
    return AttemptLimit("account_attempts", settings.account_attempts, subject, *_delays(context))


def _other_networks_limit(context: RestContext, account: Account) -> AttemptLimit:
    max_attempts = context.settings.unknown_network_attempts
    return AttemptLimit("unknown_network_attempts", max_attempts, account.name, *_delays(context))


def _delays(context: RestContext) -> tuple[int, Delays]:
    """How long failed attempts count (ms), which is longer than any delay; and the delays."""
    delays = Delays(
        milliseconds(context.settings.attempts_delay_s), milliseconds(context.settings.attempts_delay_max_s)
    )
    return max(DAY_MS, 2 * delays.longest_ms), delays


def _window_ms(context: RestContext) -> int:
    return milliseconds(context.settings.attempts_window_s)


@asynccontextmanager
async def limited_action(
    context: RestContext, project_id: int, allowances: Sequence[AttemptLimit]
) -> AsyncIterator[None]:
    """The action of the body counts, unless an error says that it was not done. Raises TooManyRequests."""
    async with limited_attempt(context, project_id, allowances) as attempt:
        attempt.counts = True
        try:
            yield
        except NotConfirmed:
            raise
        except (RequestError, StoreError):
            attempt.counts = False
            raise


async def _shielded(settling: Coroutine[Any, Any, None]) -> None:
    """Await this to its end, even if the request is cancelled meanwhile."""
    task = asyncio.create_task(settling)
    _running.add(task)
    task.add_done_callback(_forget)
    await asyncio.shield(task)


def _forget(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled():
        # Retrieve it: otherwise asyncio logs an error for a request that was cancelled.
        task.exception()


def remote_network(request: web.Request) -> str:
    """The network of the client's address, as limits count it; empty without an address."""
    return network_of(client_address(request) or "")


def subnet(request: web.Request) -> str:
    """The network that attempts for an account are counted by: /24 of IPv4, /64 of IPv6."""
    network = remote_network(request)
    return network if ":" in network else network.rpartition(".")[0]


def token_attempts(context: RestContext, request: web.Request) -> tuple[AttemptLimit, ...]:
    """The limits of attempts to use a token, which names no account.

    They count apart from those of passwords, so that failed logins of a network do not block links in mails.
    """
    return (_address_attempts(context, request, "token"),)


def registration_limits(context: RestContext, request: web.Request) -> tuple[AttemptLimit, ...]:
    """The limits of registrations that are refused because the address has a user: the refusal reveals it."""
    return (_address_attempts(context, request, "registration"),)


def _address_attempts(context: RestContext, request: web.Request, what: str) -> AttemptLimit:
    subject = f"{what} {remote_network(request)}"
    return AttemptLimit("address_attempts", context.settings.address_attempts, subject, _window_ms(context))


async def message_limits(
    context: RestContext, request: web.Request, project_id: int, to: str
) -> tuple[AttemptLimit, ...]:
    """The limits of messages to an address or number.

    They count by the network of the request, and together for all networks without a login to the account
    lately. So the requests of strangers do not use up the messages of the owner.
    """
    return _messages_to(context, request, to, is_known=await _is_known(context, request, project_id, to))


async def sms_limits(
    context: RestContext, request: web.Request, project_id: int, phone: str
) -> tuple[AttemptLimit, ...]:
    """The limits of SMS, which cost money: those of messages, and the project's number of SMS a day.

    A part of these is reserved for users at networks where they logged in lately, and one number gets only a
    part. So neither strangers nor one user can use up the SMS of all others.
    """
    max_attempts, is_known = (
        context.settings.project_sms_per_day,
        await _is_known(context, request, project_id, phone),
    )
    limits = [*_messages_to(context, request, phone, is_known=is_known), _sms_a_day(max_attempts, "")]
    if max_attempts:
        of_one = max(context.settings.recipient_messages, max_attempts // SMS_OF_ONE_NUMBER)
        # Counted apart: strangers must not use up the messages of the number's owner.
        limits.append(_sms_a_day(of_one, f"to {phone} by {'its user' if is_known else 'strangers'}"))
        if not is_known:
            limits.append(_sms_a_day(max_attempts - max_attempts // SMS_LEFT_FOR_KNOWN, "strangers"))
    return tuple(limits)


def _sms_a_day(max_attempts: int, subject: str) -> AttemptLimit:
    return AttemptLimit("project_sms_per_day", max_attempts, subject, DAY_MS)


async def _is_known(context: RestContext, request: web.Request, project_id: int, to: str) -> bool:
    """Whether the owner of an address or number logged in from the client's network lately."""
    return await context.store.attempts.is_known_network(project_id, Account(to.lower(), subnet(request)))


def _messages_to(
    context: RestContext, request: web.Request, to: str, *, is_known: bool
) -> tuple[AttemptLimit, ...]:
    settings, window_ms = context.settings, _window_ms(context)
    from_there = f"{to.lower()} from {subnet(request)}"
    limits = (
        AttemptLimit("address_messages", settings.address_messages, remote_network(request), window_ms),
        AttemptLimit("account_messages", settings.account_messages, from_there, window_ms),
    )
    if is_known:
        return limits
    return (*limits, AttemptLimit("recipient_messages", settings.recipient_messages, to.lower(), window_ms))


def invitation_limits(
    context: RestContext, request: web.Request, caller: Principal, to: str
) -> tuple[AttemptLimit, ...]:
    """The limits of mails that invite to a home.

    They count apart from `message_limits`, so that invitations do not use up the messages of the invited
    user. A project key belongs to a server, which invites for many users.
    """
    settings, window_ms = context.settings, _window_ms(context)
    subject = f"invitation {to.lower()}"
    allowances = [AttemptLimit("account_messages", settings.account_messages, subject, window_ms)]
    if caller.kind is PrincipalKind.USER:
        subject = f"invitation {remote_network(request)}"
        allowances.append(AttemptLimit("address_messages", settings.address_messages, subject, window_ms))
    return tuple(allowances)


def member_limits(context: RestContext, user_id: int) -> tuple[AttemptLimit, ...]:
    """The limits of members that a user adds to homes, a day."""
    return (AttemptLimit("user_invitations", context.settings.user_invitations, str(user_id), DAY_MS),)


def password_change_limits(context: RestContext, user_id: int) -> tuple[AttemptLimit, ...]:
    """The limits of new passwords of a user: each takes as much of a core as a login."""
    return (
        AttemptLimit("user_passwords", context.settings.user_passwords, str(user_id), _window_ms(context)),
    )
