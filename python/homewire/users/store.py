"""The repository of users: end-users of a project, who log in as its account system says."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

from homewire.errors import Conflict, InvalidInput, RequestError, Unavailable, UnknownRecord
from homewire.logins import passwords
from homewire.logins.passwords import Lane, Passwords
from homewire.messages.models import OutboxMessage
from homewire.projects.models import AccountSystem, Project
from homewire.projects.store import Projects
from homewire.sessions.store import Sessions
from homewire.store import checks
from homewire.store.database import ATTEMPTS, PAGE, Database, require_ok, retries_exhausted
from homewire.store.keys import ProjectSlot
from homewire.store.parts import Part
from homewire.store.script import changing, lua
from homewire.users.deletion import NO_KEY, UserDeletion
from homewire.users.models import PendingVerification, ProofKind, User, message_arguments, new_code, new_token
from homewire.users.registrations import Registrations

CREATE_USER: Final = changing(lua(__package__, "create_user"), charges=True)
REGISTER_USER: Final = changing(lua(__package__, "register_user"), sends=True, charges=True)
UPDATE_USER: Final = changing(lua(__package__, "update_user"), sends=True)
REHASH_PASSWORD: Final = changing(lua(__package__, "rehash_password"))
NOTE_FAILED_LOGIN: Final = changing(lua(__package__, "note_failed_login"))


class AuthenticatedUser(NamedTuple):
    """A user whose password was right."""

    user: User
    password_hash: str
    """The hash of that password, to require that it has not changed since."""


class PasswordChange(NamedTuple):
    """A new password of a user."""

    hash: str
    replaces: str
    """Hash of the password that it replaces: it replaces no other one."""
    session_id: str | None
    """The session that stays; the user's other sessions end. None: all stay."""
    message: OutboxMessage
    """The notice to the user."""


class Users:
    """The users of a project."""

    def __init__(
        self,
        database: Database,
        projects: Projects,
        deletion: UserDeletion,
        registrations: Registrations,
        sessions: Sessions,
        passwords: Passwords,
    ) -> None:
        self._database = database
        self._projects = projects
        self._sessions = sessions
        self._deletion = deletion
        self._registrations = registrations
        self._passwords = passwords

    async def create(
        self,
        project_id: int,
        name: str,
        email: str | None = None,
        phone: str | None = None,
        password: str | None = None,
        external_key: str | None = None,
        verified: bool = False,
        verification: PendingVerification | None = None,
    ) -> User:
        """A new user. An e-mail project wants `email`, a phone project `phone`, a BYOU project neither,
        and there `name` may be empty. With `verification` a token or a sign-in code is sent.

        An e-mail address that is not verified may be registered again: see `Registrations`. A user who was
        invited under an address keeps id and memberships. Users of a BYOU project are verified. Raises
        InvalidInput, UnknownRecord (project), Conflict (EMAIL_IN_USE, USER_EXISTS, USER_EXISTS_UNVERIFIED).
        """
        project = await self._projects.get(project_id)
        if project is None:
            raise UnknownRecord("project", project_id)
        if name or project.accounts is not AccountSystem.BYOU:
            checks.name("name", name)
        _check_accounts(project, email, phone, password, external_key)
        email = checks.email(email) if email is not None else None
        phone = checks.phone(phone) if phone is not None else None
        if password is not None:
            await passwords.reject_guessable(password, (name, email))
        password_hash = await self._passwords.hash(password, project_id) if password is not None else ""
        user = User(
            await self._database.new_id(), project_id, name, self._database.now_ms(), email, phone,
            verified or project.accounts is AccountSystem.BYOU, external_key,
        )  # fmt: skip
        return await self._store(user, password_hash, verification)

    async def get(self, project_id: int, user_id: int) -> User | None:
        """A registered user, None if there is none of this id."""
        user = await self.get_any(project_id, user_id)
        return user if user is not None and not user.invited else None

    async def get_any(self, project_id: int, user_id: int) -> User | None:
        """A user, registered or only invited."""
        record = await self._database.read_hash(ProjectSlot(project_id).user(user_id))
        return _user(project_id, user_id, record) if record else None

    async def by_email(self, project_id: int, email: str) -> User | None:
        """The registered user of an e-mail address, in any case."""
        try:
            unique = checks.email(email).lower()
        except InvalidInput:
            return None
        return await self._by(project_id, ProjectSlot(project_id).emails, unique)

    async def by_phone(self, project_id: int, phone: str) -> User | None:
        """The registered user of a phone number, given with its country code."""
        try:
            unique = checks.phone(phone)
        except InvalidInput:
            return None
        return await self._by(project_id, ProjectSlot(project_id).phones, unique)

    async def require_free(self, project_id: int, address: str) -> None:
        """Raise Conflict, as `create` would, if an address or number in its unique form has a user."""
        slot = ProjectSlot(project_id)
        directory, what = (slot.emails, "email") if "@" in address else (slot.phones, "phone")
        holder = await self._by(project_id, directory, address.lower())
        if holder is not None and (holder.verified or what != "email"):
            raise taken(what, holder)

    async def authenticate(self, project_id: int, email: str, password: str) -> AuthenticatedUser | None:
        """The registered user of an address, if the password is right. A wrong one is noted with the user.

        An unknown or malformed address and a user without a password take as long as a wrong password.
        """
        slot = ProjectSlot(project_id)
        user_id = int(await self._database.read("HGET", slot.emails, _unique_email(email)) or 0)
        record = await self._database.read_hash(slot.user(user_id))
        stored = record.get("password", "")
        if await self._passwords.verify(stored, password, project_id):
            user = _user(project_id, user_id, record)
            if not user.invited or user.pending:
                return AuthenticatedUser(user, await self._rehashed(slot, user_id, stored, password))
        await self.note_failed_login(project_id, user_id)
        return None

    async def stored_password(self, project_id: int, user_id: int) -> str:
        """The hash of a user's password; empty if there is none."""
        return (await self._database.read_hash(ProjectSlot(project_id).user(user_id))).get("password", "")

    async def is_password(self, project_id: int, stored: str, password: str) -> bool:
        """Whether `password` is the one that was hashed to `stored`, for a change of it."""
        return await self._passwords.verify(stored, password, project_id, Lane.CHANGE)

    async def _rehashed(self, slot: ProjectSlot, user_id: int, stored: str, password: str) -> str:
        """The hash of a right password, made again if the parameters have changed."""
        if not self._passwords.is_outdated(stored):
            return stored
        try:
            new = await self._passwords.hash(password, slot.project_id, Lane.CHANGE)
        except (InvalidInput, RequestError, Unavailable):
            # The next login tries again. A password that was long enough once is still right.
            return stored
        answer = await self._database.change(REHASH_PASSWORD, slot, [slot.user(user_id)], [stored, new])
        return new if answer[0] == "ok" else stored

    async def note_failed_login(self, project_id: int, user_id: int) -> None:
        """Note a failed login as this user. An unknown id takes as long, and changes nothing.

        (A successful login is noted by the script that opens its session.)
        """
        slot = ProjectSlot(project_id)
        await self._database.change(NOTE_FAILED_LOGIN, slot, [slot.user(user_id)], [self._database.now_ms()])

    async def password_hash(self, password: str, project_id: int = 0) -> str:
        """The hash of a new password. Raises InvalidInput for a password of a wrong length."""
        return await self._passwords.hash(password, project_id, Lane.CHANGE)

    async def update(
        self,
        project_id: int,
        user_id: int,
        name: str | None = None,
        ui_time_zone: str | None = None,
        password: PasswordChange | None = None,
    ) -> None:
        """Change the fields that are given. Sessions that end with a new password end before it is stored:
        after a crash in between the old password is still valid.

        Raises InvalidInput, UnknownRecord, and Conflict if the password was changed meanwhile.
        """
        changes: list[str] = []
        if name is not None:
            changes += ["name", checks.name("name", name)]
        if ui_time_zone is not None:
            changes += ["ui_time_zone", checks.timezone(ui_time_zone, "uiTimeZone")]
        if password is not None:
            changes += ["password", password.hash]
        if changes:
            await self._change(ProjectSlot(project_id), user_id, changes, password)

    async def _change(
        self, slot: ProjectSlot, user_id: int, changes: Sequence[str], password: PasswordChange | None
    ) -> None:
        spared = password.session_id if password is not None else None
        for _ in range(ATTEMPTS):
            answer = await self._database.change(
                UPDATE_USER,
                slot,
                [
                    slot.user(user_id), slot.user_proofs(user_id), slot.user_sessions(user_id),
                    slot.user_registrations(user_id),
                ],
                [
                    password.replaces if password is not None else "", int(spared is not None), spared or "",
                    self._database.now_ms(), *(password.message if password is not None else ("", "")),
                    *changes,
                ],
            )  # fmt: skip
            if answer[0] == "outdated":
                raise Conflict("CONFLICT", "the password was changed meanwhile")
            if answer[0] != "moved":
                return require_ok(answer, project=slot.project_id, user=user_id)
            await self._sessions.end_all(slot.project_id, user_id, except_id=spared or "")
        raise retries_exhausted("user")

    async def list(
        self, project_id: int, skip: int = 0, limit: int | None = None, search: str = ""
    ) -> tuple[builtins.list[User], int]:
        """The users by id, without the first `skip`, at most `limit`; and the number of all of them.

        `search` selects users whose name, e-mail address, phone number or external key contains it, in any
        case. It reads all users, a page at a time.
        """
        part = await self.part(project_id, skip, limit, search)
        return await part.whole(), part.total

    async def part(
        self, project_id: int, skip: int = 0, limit: int | None = None, search: str = ""
    ) -> Part[User]:
        """Like `list`, with only the first page read."""
        index, read = ProjectSlot(project_id).users, partial(self._read, project_id)
        if not search:
            ids, total = await self._database.index_slice(index, skip, limit)
            return await Part.by_ids(ids, skip, total, read)
        wanted, found, matches = search.casefold(), list[int](), 0
        async for page in self._database.index_pages(index):
            for user in await self._read(project_id, page):
                if not _matches_search(user, wanted):
                    continue
                if skip <= matches and (limit is None or len(found) < limit):
                    found.append(user.id)
                matches += 1
        return await Part.by_ids(found, skip, matches, read)

    async def get_many(self, project_id: int, user_ids: Sequence[int]) -> dict[int, User]:
        """The users of these ids that exist, invited ones, too."""
        pages = [user_ids[start : start + PAGE] for start in range(0, len(user_ids), PAGE)]
        return {user.id: user for page in pages for user in await self._read(project_id, page)}

    async def delete(self, project_id: int, user_id: int) -> None:
        """Delete a user (see `UserDeletion`). Raises UnknownRecord.

        A crash half-way leaves stale members; `sweep` or another deletion removes them.
        """
        await self._deletion.delete(project_id, user_id)

    async def sweep(self, project_id: int) -> None:
        """Finish deletions that a crash interrupted: take deleted users out of their homes."""
        await self._deletion.sweep(project_id)

    async def _read(self, project_id: int, ids: Sequence[int]) -> builtins.list[User]:
        """The users of at most a page of ids that still exist."""
        records = await self._database.read_hashes([ProjectSlot(project_id).user(each) for each in ids])
        pairs = zip(ids, records, strict=True)
        return [_user(project_id, user_id, record) for user_id, record in pairs if record]

    async def _by(self, project_id: int, directory: str, value: str) -> User | None:
        user_id = await self._database.read("HGET", directory, value)
        # An unknown address takes two round trips, too: the time must not reveal it.
        return await self.get(project_id, int(user_id or 0))

    async def any_by_email(self, project_id: int, email: str) -> User | None:
        """The user of an e-mail address, registered or only invited. Raises InvalidInput for what is none."""
        unique = checks.email(email).lower()
        user_id = await self._database.read("HGET", ProjectSlot(project_id).emails, unique)
        return await self.get_any(project_id, int(user_id or 0))

    async def _store(self, user: User, password_hash: str, verification: PendingVerification | None) -> User:
        slot, email = ProjectSlot(user.project_id), user.email or ""
        invited = False
        for _ in range(ATTEMPTS):
            names = [
                slot.user(user.id), slot.users, slot.emails, slot.phones, slot.external_keys,
                slot.user_registrations(user.id), slot.unverified_users, slot.invited_users,
            ]  # fmt: skip
            arguments: list[str | int] = [
                user.id, user.created_ms, user.name, password_hash, email, email.lower(),
                user.phone or "", user.external_key or "", int(user.verified), int(invited),
            ]  # fmt: skip
            if verification is None:
                answer = await self._database.change(CREATE_USER, slot, names, arguments)
            else:
                proof_names, proof = _first_proof(slot, user, verification, self._database.now_ms())
                answer = await self._database.change(
                    REGISTER_USER, slot, [*names, *proof_names], [*arguments, *proof]
                )
            if answer[0] == "taken":
                holder = await self.get_any(user.project_id, int(answer[2]))
                again = verification if answer[1] == "email" and holder and not holder.verified else None
                if holder is not None and again is not None:
                    pending = await self._registrations.again(holder, user, password_hash, again)
                    if pending is not None:
                        return pending
                elif holder is not None and not holder.invited:
                    raise taken(answer[1], holder)
                elif holder is not None:
                    user, invited = replace(user, id=holder.id), True
            elif answer[0] == "moved":
                # The invitation was withdrawn, or another registration accepted it.
                user, invited = replace(user, id=await self._database.new_id()), False
            else:
                require_ok(answer, project=user.project_id)
                return user
        raise retries_exhausted("user")


def _first_proof(
    slot: ProjectSlot, user: User, verification: PendingVerification, now_ms: int
) -> tuple[list[str], list[str | int]]:
    """The keys and arguments of REGISTER_USER that CREATE_USER lacks, for this id of the user."""
    if user.phone is not None:
        proof, token = new_code(user.project_id, user.id), NO_KEY
    else:
        proof = new_token(user.project_id, ProofKind.EMAIL_VERIFICATION)
        token = proof.hash
    lifetime_ms = verification.lifetime_ms
    return [slot.user_proofs(user.id), slot.proof(token)], [
        proof.kind, proof.hash, now_ms + lifetime_ms, lifetime_ms,
        *message_arguments(verification.make_message, proof.secret),
    ]  # fmt: skip


def taken(what: str, holder: User) -> Conflict:
    """Why an address, number or external key is refused that another user has."""
    if what == "email":
        return Conflict("EMAIL_IN_USE", "another user of the project has this e-mail address")
    reason = "USER_EXISTS" if holder.verified else "USER_EXISTS_UNVERIFIED"
    field = {"phone": "phoneNumber", "external_key": "externalKey"}.get(what, what)
    return Conflict(reason, f"another user of the project has this {what.replace('_', ' ')}", field)


def _unique_email(name: str) -> str:
    """What the directory has of an address; nothing that it can have of what is none."""
    try:
        return checks.email(name).lower()
    except InvalidInput:
        return ""


def _matches_search(user: User, wanted: str) -> bool:
    texts = (user.name, user.email, user.phone, user.external_key)
    return any(wanted in text.casefold() for text in texts if text)


def _check_accounts(
    project: Project, email: str | None, phone: str | None, password: str | None, external_key: str | None
) -> None:
    accounts = project.accounts
    _only_in(accounts, AccountSystem.EMAIL, "email", email, required=True)
    _only_in(accounts, AccountSystem.PHONE, "phoneNumber", phone, required=True)
    _only_in(accounts, AccountSystem.EMAIL, "password", password, required=False)
    _only_in(accounts, AccountSystem.BYOU, "externalKey", external_key, required=False)
    if external_key is not None:
        checks.name("externalKey", external_key)


def _only_in(
    accounts: AccountSystem, wanted: AccountSystem, field: str, value: str | None, *, required: bool
) -> None:
    if value is not None and accounts != wanted:
        raise InvalidInput(
            field, f"is for projects with {wanted.value} accounts; this one has {accounts.value}"
        )
    if value is None and required and accounts == wanted:
        raise InvalidInput(field, f"is required in a project with {wanted.value} accounts")


def _user(project_id: int, user_id: int, record: dict[str, str]) -> User:
    return User(
        user_id, project_id, record["name"], int(record["created"]),
        record["email"] or None, record["phone"] or None, record["verified"] == "1",
        record["external_key"] or None, record.get("invited") == "1", record.get("ui_time_zone", "UTC"),
        int(record.get("last_login", 0)), int(record.get("last_failed_login", 0)), "pending" in record,
    )  # fmt: skip
