"""Account systems: what registration, login and verification have in common."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from homewire.auth.actions import Keys
from homewire.errors import InvalidInput
from homewire.messages.models import Message, MessageKind, OutboxMessage, listed_codes, may_be_sent_to
from homewire.projects.models import AccountSystem, KeyScope, Project
from homewire.rest.context import RestContext
from homewire.server.clients import client_address
from homewire.sessions.models import ClientInfo
from homewire.timestamps import milliseconds
from homewire.users.models import PendingVerification, ProofKind, User
from homewire.users.registrations import SeveralRegistrations

FIELDS: Final = {
    AccountSystem.EMAIL: ("email", "password"),
    AccountSystem.PHONE: ("phone_number", "code"),
    AccountSystem.BYOU: ("user_id", "external_key"),
}
"""The members of a request body that identify and authenticate a user, by account system."""


async def open_project(context: RestContext, project_id: int, *systems: AccountSystem) -> Project:
    """The project of a registration or login.

    Raises InvalidInput for a project that does not exist, is disabled, or has none of these account systems.
    """
    project = await context.store.projects.get(project_id)
    if project is None or project.disabled:
        raise InvalidInput("projectId", "is no project")
    if systems and project.accounts not in systems:
        raise InvalidInput("projectId", f"has {project.accounts} accounts")
    return project


def reject_other_account_systems(body: msgspec.Struct, accounts: AccountSystem) -> None:
    """Raise InvalidInput for members of other account systems. Empty members are ignored."""
    spelled = dict(zip(body.__struct_fields__, body.__struct_encode_fields__, strict=True))
    for system, names in FIELDS.items():
        for name in names:
            if system is not accounts and name in spelled and getattr(body, name):
                raise InvalidInput(
                    spelled[name], f"is for projects with {system} accounts; this one has {accounts}"
                )


def required(field: str, value: str | None) -> str:
    """The value. Raises InvalidInput if it is missing or empty."""
    if not value:
        raise InvalidInput(field, "is required")
    return value


async def require_byou_key(context: RestContext, request: web.Request, project: Project) -> None:
    """Check that the key of the request is a project key with the scope `byou` or `admin`.

    Raises Unauthenticated, PermissionDenied, InvalidInput.
    """
    caller = await context.authenticate(request)
    Keys(scope=KeyScope.BYOU).require(caller)
    if caller.project_id != project.id:
        raise InvalidInput("projectId", "is not the project of the key")


def require_sms_country(context: RestContext, project: Project, phone: str) -> None:
    """Raise InvalidInput unless the project may send SMS to the country of this number."""
    listed = listed_codes(project.sms_country_codes or context.settings.sms_country_codes)
    if not may_be_sent_to(phone, listed):
        raise InvalidInput(
            "phoneNumber",
            "has a country code that no SMS is sent to (sms_country_codes)",
            reason="INVALID_PHONE_NUMBER",
        )


async def code_by_sms(context: RestContext, project_id: int, phone: str) -> PendingVerification:
    """A sign-in code for this number, and the SMS with it. Raises Unavailable."""
    await context.messages.require_room(MessageKind.SIGN_IN_CODE)
    lifetime_ms = milliseconds(context.settings.code_lifetime_s)

    def make_message(code: str) -> OutboxMessage:
        until_ms = context.store.now_ms() + lifetime_ms
        kind = MessageKind.SIGN_IN_CODE
        return context.messages.prepare(Message(project_id, kind, phone, code=code, good_until_ms=until_ms))

    return PendingVerification(lifetime_ms, make_message)


async def token_by_mail(
    context: RestContext, project_id: int, kind: ProofKind, email: str
) -> PendingVerification:
    """A token for this address, and the mail with it. Without an address there is no mail. Raises
    Unavailable."""
    message_kind = MessageKind(kind.value)
    await context.messages.require_room(message_kind)
    lifetime_ms = milliseconds(lifetime_s(context, kind))

    def make_message(token: str) -> OutboxMessage:
        until_ms = context.store.now_ms() + lifetime_ms
        return context.messages.prepare(
            Message(project_id, message_kind, email, token=token, good_until_ms=until_ms)
        )

    return PendingVerification(lifetime_ms, make_message)


async def send_code(context: RestContext, user: User) -> None:
    """Send the user of a phone project a new sign-in code."""
    verification = await code_by_sms(context, user.project_id, user.phone or "")
    issue = context.store.verifications.issue_code
    await issue(user.project_id, user.id, verification.lifetime_ms, verification.make_message)


async def send_token(context: RestContext, project_id: int, kind: ProofKind, user: User | None) -> None:
    """Send the user of an e-mail project a new token. For None it takes as long, and sends nothing."""
    verification = await token_by_mail(
        context, project_id, kind, (user.email if user is not None else None) or ""
    )
    verifications = context.store.verifications
    if user is None:
        await verifications.issue_decoy(project_id, kind, verification.make_message)
        return
    try:
        await verifications.issue_token(
            project_id, user.id, kind, verification.lifetime_ms, verification.make_message
        )
    except SeveralRegistrations:
        # It is unknown which of the registrations is the caller's. A link to set a new password verifies the
        # address, too.
        await send_token(context, project_id, ProofKind.PASSWORD_RESET, user)


def lifetime_s(context: RestContext, kind: ProofKind) -> float:
    """How long a token is valid, in s."""
    if kind is ProofKind.PASSWORD_RESET:
        return context.settings.password_reset_lifetime_s
    return context.settings.verification_lifetime_s


def client_info(context: RestContext, request: web.Request) -> ClientInfo:
    """What a session records of the request that opened it."""
    headers, address = request.headers, client_address(request) or ""
    return ClientInfo(address, headers.get("Host", ""), headers.get("User-Agent", ""), context.node_id)
