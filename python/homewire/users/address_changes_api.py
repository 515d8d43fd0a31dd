"""Changing the e-mail address or phone number that a user is known by."""

from __future__ import annotations

from typing import Final

import msgspec

from homewire.errors import Conflict, InvalidInput, NotFound
from homewire.logins.attempting import attempting, login_attempt, messages_to, rationed, registrations, sms_to
from homewire.messages.message import Message, MessageKind
from homewire.messages.models import Posting
from homewire.projects.models import AccountSystem
from homewire.rest.context import Api
from homewire.rest.operation import Access, Call, NoQuery, Operation
from homewire.store import checks
from homewire.users.accounts import milliseconds, refuse_other_systems, require_sms_country, required
from homewire.users.api import only_themself
from homewire.users.models import User
from homewire.users.verification import require_proof


class NewAddress(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A new e-mail address or phone number, as the account system of the project says, and what proves that
    the user may change it."""

    email: str | None = None
    phone_number: str | None = None
    current_password: str | None = None


class AddressProof(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The code that was sent to the new address."""

    code: str


async def start_address_change(api: Api, call: Call[NoQuery, NewAddress]) -> None:
    """Send a code to the new address."""
    user = await _user(api, call.project_id, call.ids["userId"])
    accounts = AccountSystem.EMAIL if user.email is not None else AccountSystem.PHONE
    refuse_other_systems(call.body, accounts)
    if accounts is AccountSystem.EMAIL:
        kind, address = MessageKind.EMAIL_CHANGE, checks.email(required("email", call.body.email))
    else:
        address, kind = (
            checks.phone(required("phoneNumber", call.body.phone_number)),
            MessageKind.PHONE_CHANGE,
        )
        project = await api.store.projects.get(user.project_id)
        if project is None:
            raise NotFound
        require_sms_country(api, project, address)
    await require_proof(api, call, user, call.body.current_password)
    await api.messages.require_room(kind)
    lifetime_ms = milliseconds(api.settings.code_lifetime_s)

    def saying(code: str) -> Posting:
        until_ms = api.store.now_ms() + lifetime_ms
        return api.messages.posting(
            Message(user.project_id, kind, address, code=code, good_until_ms=until_ms)
        )

    counted = messages_to if accounts is AccountSystem.EMAIL else sms_to
    # As of registrations: that an address has a user is told only so often.
    async with attempting(api, user.project_id, registrations(api, call.request)) as attempt:
        try:
            async with rationed(
                api, user.project_id, await counted(api, call.request, user.project_id, address)
            ):
                await api.store.address_changes.begin(user, address, lifetime_ms, saying)
        except Conflict as error:
            raise attempt.wrong(error) from None


async def change_address(api: Api, call: Call[NoQuery, AddressProof]) -> None:
    """Spend the code: the new address counts, and the one before is told."""
    user = await _user(api, call.project_id, call.ids["userId"])
    kind = MessageKind.EMAIL_CHANGED if user.email is not None else MessageKind.PHONE_CHANGED
    await api.messages.require_room(kind)
    posting = api.messages.posting(Message(user.project_id, kind, user.email or user.phone or ""))
    async with login_attempt(api, call.request, user.project_id, f"address change {user.id}") as attempt:
        session_id = call.principal.session_id
        if not await api.store.address_changes.finish(user, call.body.code, session_id, posting):
            raise attempt.wrong(InvalidInput("code", "is wrong, used or too old", reason="INVALID_AUTH_CODE"))


async def _user(api: Api, project_id: int, user_id: int) -> User:
    user = await api.store.users.get(project_id, user_id)
    if user is None:
        raise NotFound
    if user.email is None and user.phone is None:
        raise InvalidInput("email", "is for projects with email or phone accounts")
    return user


_STATUSES: Final = frozenset({401, 403, 404, 429})

OPERATIONS: Final = (
    Operation(
        name="startAddressChange",
        method="POST",
        path="/users/{userId}/addressChange/start",
        tag="Users",
        summary="Have a code sent to a new e-mail address or phone number",
        description="The body has email or phoneNumber, as the account system of the project says. It needs "
        "currentPassword, or a login within recent_login_s: else 403 INSUFFICIENT_AUTH. An address that "
        "another user has is refused as at registration. The newest code counts, for code_lifetime_s and 5 "
        "tries; until POST /users/{userId}/addressChange takes it, nothing is changed.",
        source="homewire's own",
        access=Access(user=True),
        visible=only_themself,
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
        description="From the answer on the user is known by the new one. The user's other sessions end. "
        "What was sent to the address before (a link to reset the password, a code) is good for nothing, and "
        "a message tells it.",
        source="homewire's own",
        access=Access(user=True),
        visible=only_themself,
        handler=change_address,
        body=AddressProof,
        success=204,
        errors=_STATUSES,
    ),
)
