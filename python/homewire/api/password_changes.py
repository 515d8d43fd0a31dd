"""Changing a password: what proves that a user may, and who is told."""

from __future__ import annotations

from typing import Any

from homewire.api.accounts import milliseconds
from homewire.api.attempting import guessing
from homewire.api.context import Api
from homewire.api.operation import Call
from homewire.errors import InvalidInput
from homewire.model import AccountSystem, Posting, Session, User
from homewire.notify.message import Message, MessageKind
from homewire.store import common_passwords
from homewire.store.users import NewPassword


async def new_password(
    api: Api, call: Call[Any, Any], user: User, password: str, current: str | None, *, keep_others: bool
) -> NewPassword:
    """What is to be stored of a new password that a user chose with the present one, or soon after a login.

    Raises InvalidInput (INSUFFICIENT_AUTH without a proof, PASSWORD_TOO_WEAK, PASSWORD_TOO_SHORT),
    TooManyRequests, Unavailable.
    """
    project = await api.store.projects.get(user.project_id)
    if project is None or project.accounts is not AccountSystem.EMAIL:
        raise InvalidInput("password", "is for projects with email accounts")
    replaces = await require_proof(api, call, user, current)
    await common_passwords.refuse(password, (user.name, user.email))
    posting = await told(api, user)
    hashed = await api.store.users.password_hash(password, user.project_id)
    return NewPassword(hashed, replaces, None if keep_others else call.principal.session_id, posting)


async def require_proof(api: Api, call: Call[Any, Any], user: User, current: str | None) -> str:
    """The caller knows the present password, or logged in not long ago. The hash of that password.

    Raises InvalidInput (INSUFFICIENT_AUTH), TooManyRequests.
    """
    stored = await api.store.users.stored_password(user.project_id, user.id)
    if current:
        await _prove(api, call, user, stored, current)
    else:
        await _require_recent_login(api, call)
    return stored


async def told(api: Api, user: User) -> Posting:
    """The message that tells the owner of an account. Raises Unavailable."""
    kind = MessageKind.PASSWORD_CHANGED
    await api.messages.require_room(kind)
    return api.messages.posting(Message(user.project_id, kind, user.email or ""))


async def _prove(api: Api, call: Call[Any, Any], user: User, stored: str, current: str) -> None:
    async with guessing(api, call.request, user.project_id, user.email or "") as attempt:
        if not await api.store.users.is_password(user.project_id, stored, current):
            await api.store.users.note_failed_login(user.project_id, user.id)
            raise attempt.wrong(
                InvalidInput("currentPassword", "is not the present password", reason="INSUFFICIENT_AUTH")
            )


async def _require_recent_login(api: Api, call: Call[Any, Any]) -> None:
    session = await api.store.sessions.get(call.project_id, call.principal.session_id)
    if session is None or not _is_recent(api, session):
        within = f"{api.settings.recent_login_s:g} s"
        raise InvalidInput(
            "currentPassword", f"is required, or a login within the last {within}", reason="INSUFFICIENT_AUTH"
        )


def _is_recent(api: Api, session: Session) -> bool:
    """Whether a login opened it just now. A key of another session proves nothing anew."""
    age_ms = api.store.now_ms() - session.started_ms
    return not session.ancestors and age_ms < milliseconds(api.settings.recent_login_s)
