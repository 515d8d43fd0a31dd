"""Verification of addresses, new passwords, and new addresses (spec 001, *Authentication*).

Only `/auth/user/sms` reveals whether an address is registered, as the specification demands it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from homewire.auth import tokens
from homewire.auth.actions import Action
from homewire.errors import Conflict, InvalidInput, NotFound
from homewire.logins import passwords
from homewire.logins.attempt_limits import (
    limited_action,
    limited_attempt,
    login_attempt,
    message_limits,
    registration_limits,
    sms_limits,
    token_attempts,
    trust,
)
from homewire.messages.models import Message, MessageKind, OutboxMessage
from homewire.projects.models import AccountSystem
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.operation import Access, BodyKind, Call, NoQuery, Operation
from homewire.sessions.models import Session
from homewire.store import checks
from homewire.timestamps import milliseconds
from homewire.users.accounts import (
    open_project,
    reject_other_account_systems,
    require_sms_country,
    required,
    send_code,
    send_token,
)
from homewire.users.models import ProofKind, User
from homewire.users.store import PasswordChange
from homewire.users.verification import invalid_token


class Phone(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Initiate User Authentication with SMS*."""

    project_id: models.Id
    phone_number: str


class Email(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Initiate User Email Verification* and *Initiate User Password Reset*."""

    project_id: models.Id
    email: str


class EmailProof(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Verify User Email Address*, and the further fields of our own page."""

    token: str
    password: str | None = None


class NewPassword(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of *Reset User Password*."""

    token: str
    new_password: str


async def start_sms(context: RestContext, call: Call[NoQuery, Phone]) -> models.SMSMessageReceipt:
    """Send a sign-in code."""
    project = await open_project(context, call.body.project_id, AccountSystem.PHONE)
    phone = checks.phone(call.body.phone_number)
    # Requests for unknown numbers count, too: they reveal which numbers are registered.
    require_sms_country(context, project, phone)
    async with limited_action(
        context, project.id, await sms_limits(context, call.request, project.id, phone)
    ):
        user = await context.store.users.by_phone(project.id, phone)
        if user is not None:
            await send_code(context, user)
    if user is None:
        raise InvalidInput("phoneNumber", "is not registered", reason="INVALID_PHONE_NUMBER")
    return models.SMSMessageReceipt(recipient=phone)


async def start_email_verification(context: RestContext, call: Call[NoQuery, Email]) -> None:
    """Send the link that verifies an address, if it is registered and not verified."""
    await _start(context, call, ProofKind.EMAIL_VERIFICATION)


async def start_password_reset(context: RestContext, call: Call[NoQuery, Email]) -> None:
    """Send the link to reset a password, if the address is registered."""
    await _start(context, call, ProofKind.PASSWORD_RESET)


async def _start(context: RestContext, call: Call[NoQuery, Email], kind: ProofKind) -> None:
    project = await open_project(context, call.body.project_id, AccountSystem.EMAIL)
    email = checks.email(call.body.email)
    async with limited_action(
        context, project.id, await message_limits(context, call.request, project.id, email)
    ):
        await send_token(context, project.id, kind, await _recipient(context, project.id, email, kind))


async def _recipient(context: RestContext, project_id: int, email: str, kind: ProofKind) -> User | None:
    if kind is ProofKind.PASSWORD_RESET:
        return await context.store.users.by_email(project_id, email)
    user = await context.store.users.any_by_email(project_id, email)
    return user if user is not None and user.registering else None


async def verify_email(context: RestContext, call: Call[NoQuery, EmailProof]) -> None:
    """Spend a token: its user is verified."""
    project_id, counted = await _project(context, call.body.token), token_attempts(context, call.request)
    async with limited_attempt(context, project_id, counted) as attempt:
        try:
            if call.body.password is not None:
                await _require_registrant(context, project_id, call.body.token, call.body.password)
            await context.store.verifications.verify_email(call.body.token)
        except InvalidInput as error:
            raise attempt.failed(error) from None


async def _require_registrant(context: RestContext, project_id: int, token: str, password: str) -> None:
    """Raise InvalidInput unless this is the password that was chosen at the registration, if one was.

    The token proves that the address is read by the caller; this, that the caller registered. Without it the
    owner of an address would confirm the registration of an attacker, and let the attacker in.
    """
    stored = await context.store.verifications.registered_password(token)
    if stored and not await context.store.users.is_password(project_id, stored, password):
        raise InvalidInput(
            "password", "is not the one that was chosen at the registration", reason="INCORRECT_PASSWORD"
        )


async def reset_password(context: RestContext, call: Call[NoQuery, NewPassword]) -> None:
    """Spend a token: its user has a new password, is verified, and has no session any more."""
    token, verifications = call.body.token, context.store.verifications
    project_id, counted = await _project(context, token), token_attempts(context, call.request)
    async with limited_attempt(context, project_id, counted) as attempt:
        holder = await verifications.holder(token, ProofKind.PASSWORD_RESET)
        user = holder and await context.store.users.get_any(*holder)
        if not user:
            raise attempt.failed(invalid_token())
        await passwords.reject_guessable(call.body.new_password, (user.name, user.email), "newPassword")
        try:
            password_hash = await context.store.users.password_hash(call.body.new_password, project_id)
        except InvalidInput as error:
            raise InvalidInput("newPassword", error.data["problem"], reason=error.reason) from None
        # If another request used the token first, its caller knew it: this is no guess.
        await verifications.reset_password(token, password_hash, await password_notice(context, user))
    # The user can log in from here, even if guesses of other callers have reached a limit.
    await trust(context, call.request, project_id, user.email or "")


async def _project(context: RestContext, token: str) -> int:
    """The project of a token. Raises InvalidInput (INVALID_TOKEN)."""
    reference = tokens.parse(token)
    project = None if reference is None else await context.store.projects.get(reference.project_id)
    if project is None or project.disabled:
        raise invalid_token()
    return project.id


_ANONYMOUS: Final = Access(anonymous=True, by_handler=True)
"""No key is needed; a key that is given is ignored."""
_ERRORS: Final = frozenset({401, 403, 429})
"""The statuses of the specification, though a 401 is impossible without a key."""


async def new_password(
    context: RestContext,
    call: Call[Any, Any],
    user: User,
    password: str,
    current: str | None,
    *,
    keep_others: bool,
) -> PasswordChange:
    """What is to be stored of a new password that a user chose with the present one, or soon after a login.

    Raises InvalidInput (INSUFFICIENT_AUTH without a proof, PASSWORD_TOO_WEAK, PASSWORD_TOO_SHORT),
    TooManyRequests, Unavailable.
    """
    project = await context.store.projects.get(user.project_id)
    if project is None or project.accounts is not AccountSystem.EMAIL:
        raise InvalidInput("password", "is for projects with email accounts")
    replaces = await require_reauthentication(context, call, user, current)
    await passwords.reject_guessable(password, (user.name, user.email))
    message = await password_notice(context, user)
    hashed = await context.store.users.password_hash(password, user.project_id)
    return PasswordChange(hashed, replaces, None if keep_others else call.principal.session_id, message)


async def require_reauthentication(
    context: RestContext, call: Call[Any, Any], user: User, current: str | None
) -> str:
    """Check that the caller knows the present password, or logged in lately. Returns the password's hash.

    Raises InvalidInput (INSUFFICIENT_AUTH), TooManyRequests.
    """
    stored = await context.store.users.stored_password(user.project_id, user.id)
    if current:
        await _require_password(context, call, user, stored, current)
    else:
        await _require_recent_login(context, call)
    return stored


async def password_notice(context: RestContext, user: User) -> OutboxMessage:
    """The notice to a user that the password was changed. Raises Unavailable."""
    kind = MessageKind.PASSWORD_CHANGED
    await context.messages.require_room(kind)
    return context.messages.prepare(Message(user.project_id, kind, user.email or ""))


async def _require_password(
    context: RestContext, call: Call[Any, Any], user: User, stored: str, current: str
) -> None:
    async with login_attempt(context, call.request, user.project_id, user.email or "") as attempt:
        if not await context.store.users.is_password(user.project_id, stored, current):
            await context.store.users.note_failed_login(user.project_id, user.id)
            raise attempt.failed(
                InvalidInput("currentPassword", "is not the present password", reason="INSUFFICIENT_AUTH")
            )


async def _require_recent_login(context: RestContext, call: Call[Any, Any]) -> None:
    session = await context.store.sessions.get(call.project_id, call.principal.session_id)
    if session is None or not _is_recent(context, session):
        within = f"{context.settings.recent_login_s:g} s"
        raise InvalidInput(
            "currentPassword", f"is required, or a login within the last {within}", reason="INSUFFICIENT_AUTH"
        )


def _is_recent(context: RestContext, session: Session) -> bool:
    """Whether a login opened the session lately. Derived sessions do not count."""
    age_ms = context.store.now_ms() - session.started_ms
    return not session.ancestors and age_ms < milliseconds(context.settings.recent_login_s)


class NewAddress(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A new e-mail address or phone number, and the present password."""

    email: str | None = None
    phone_number: str | None = None
    current_password: str | None = None


class AddressProof(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The code that was sent to the new address."""

    code: str


async def start_address_change(context: RestContext, call: Call[NoQuery, NewAddress]) -> None:
    """Send a code to the new address (issue 12)."""
    user = await _user(context, call.project_id, call.ids["userId"])
    accounts = AccountSystem.EMAIL if user.email is not None else AccountSystem.PHONE
    reject_other_account_systems(call.body, accounts)
    if accounts is AccountSystem.EMAIL:
        kind, address = MessageKind.EMAIL_CHANGE, checks.email(required("email", call.body.email))
    else:
        address, kind = (
            checks.phone(required("phoneNumber", call.body.phone_number)),
            MessageKind.PHONE_CHANGE,
        )
        project = await context.store.projects.get(user.project_id)
        if project is None:
            raise NotFound
        require_sms_country(context, project, address)
    await require_reauthentication(context, call, user, call.body.current_password)
    await context.messages.require_room(kind)
    lifetime_ms = milliseconds(context.settings.code_lifetime_s)

    def make_message(code: str) -> OutboxMessage:
        until_ms = context.store.now_ms() + lifetime_ms
        return context.messages.prepare(
            Message(user.project_id, kind, address, code=code, good_until_ms=until_ms)
        )

    counted = message_limits if accounts is AccountSystem.EMAIL else sms_limits
    # Limited like registrations: the answer tells whether an address has a user.
    async with limited_attempt(
        context, user.project_id, registration_limits(context, call.request)
    ) as attempt:
        try:
            async with limited_action(
                context, user.project_id, await counted(context, call.request, user.project_id, address)
            ):
                await context.store.address_changes.begin(user, address, lifetime_ms, make_message)
        except Conflict as error:
            raise attempt.failed(error) from None


async def change_address(context: RestContext, call: Call[NoQuery, AddressProof]) -> None:
    """Spend the code: store the new address, and send a notice to the one before."""
    user = await _user(context, call.project_id, call.ids["userId"])
    kind = MessageKind.EMAIL_CHANGED if user.email is not None else MessageKind.PHONE_CHANGED
    await context.messages.require_room(kind)
    message = context.messages.prepare(Message(user.project_id, kind, user.email or user.phone or ""))
    async with login_attempt(context, call.request, user.project_id, f"address change {user.id}") as attempt:
        session_id = call.principal.session_id
        if not await context.store.address_changes.finish(user, call.body.code, session_id, message):
            raise attempt.failed(
                InvalidInput("code", "is wrong, used or expired", reason="INVALID_AUTH_CODE")
            )


async def _user(context: RestContext, project_id: int, user_id: int) -> User:
    user = await context.store.users.get(project_id, user_id)
    if user is None:
        raise NotFound
    if user.email is None and user.phone is None:
        raise InvalidInput("email", "is for projects with email or phone accounts")
    return user


_STATUSES: Final = frozenset({401, 403, 404, 429})

OPERATIONS: Final = (
    Operation(
        name="startSMS",
        method="POST",
        path="/auth/user/sms",
        tag="Authentication",
        summary="Send a sign-in code to a phone",
        description="Only the newest code is valid, for some minutes and 5 tries.",
        source="spec 001, Initiate User Authentication with SMS",
        access=_ANONYMOUS,
        handler=start_sms,
        body=Phone,
        body_kind=BodyKind.FORM,
        answer=models.SMSMessageReceipt,
        errors=_ERRORS,
    ),
    Operation(
        name="verifyEmail",
        method="POST",
        path="/auth/user/emailVerification",
        tag="Authentication",
        summary="Verify an e-mail address by the token that was sent there",
        description="With `password`, only if it is the password of the registration. A page of your own "
        "should ask for it: a stranger may have registered with the address.",
        source="spec 001, Verify User Email Address",
        access=_ANONYMOUS,
        handler=verify_email,
        body=EmailProof,
        body_kind=BodyKind.FORM,
        errors=_ERRORS,
    ),
    Operation(
        name="startEmailVerification",
        method="POST",
        path="/auth/user/emailVerification/start",
        tag="Authentication",
        summary="Send the link that verifies an e-mail address again",
        description="The answer is the same for every address. Only the newest link is valid.",
        source="spec 001, Initiate User Email Verification",
        access=_ANONYMOUS,
        handler=start_email_verification,
        body=Email,
        body_kind=BodyKind.FORM,
        errors=_ERRORS,
    ),
    Operation(
        name="resetPassword",
        method="POST",
        path="/auth/user/passwordReset",
        tag="Authentication",
        summary="Set a new password by the token that was sent to the user",
        description="All sessions of the user end, and the server mails a notice. The token was sent to the "
        "address, so the address is verified, too.",
        source="spec 001, Reset User Password",
        access=_ANONYMOUS,
        handler=reset_password,
        body=NewPassword,
        body_kind=BodyKind.FORM,
        errors=_ERRORS,
    ),
    Operation(
        name="startPasswordReset",
        method="POST",
        path="/auth/user/passwordReset/start",
        tag="Authentication",
        summary="Send a link to reset the password",
        description="The answer is the same for every address. Only the newest link is valid.",
        source="spec 001, Initiate User Password Reset",
        access=_ANONYMOUS,
        handler=start_password_reset,
        body=Email,
        body_kind=BodyKind.FORM,
        errors=_ERRORS,
    ),
    Operation(
        name="startAddressChange",
        method="POST",
        path="/users/{userId}/addressChange/start",
        tag="Users",
        summary="Send a code to a new e-mail address or phone number",
        description="The body has email or phoneNumber, as the account system of the project says. It needs "
        "currentPassword, or a login within recent_login_s: else 403 INSUFFICIENT_AUTH. An address of "
        "another user is refused as at registration. Only the newest code is valid, for code_lifetime_s and "
        "5 tries. The address changes when POST /users/{userId}/addressChange takes the code.",
        source="homewire's own",
        access=Access(user=True),
        action=Action.USE_ACCOUNT,
        handler=start_address_change,
        body=NewAddress,
        success=204,
        errors=_STATUSES,
    ),
    Operation(
        name="changeAddress",
        method="POST",
        path="/users/{userId}/addressChange",
        tag="Users",
        summary="Change the e-mail address or phone number by the code that was sent there",
        description="From the answer on, the new address identifies the user. The user's other sessions end. "
        "Links and codes that were sent to the old address become invalid, and the server sends a notice "
        "there.",
        source="homewire's own",
        access=Access(user=True),
        action=Action.USE_ACCOUNT,
        handler=change_address,
        body=AddressProof,
        success=204,
        errors=_STATUSES,
    ),
)
