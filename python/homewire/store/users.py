"""Users: registered end-users of a project, signing in as its account system says."""

from __future__ import annotations

from typing import Final

from homewire.errors import InvalidInput, UnknownRecord
from homewire.model import AccountSystem, Project, User
from homewire.store import checks
from homewire.store.database import ATTEMPTS, Database, outrun, require_ok
from homewire.store.keys import ProjectSlot
from homewire.store.passwords import Passwords
from homewire.store.projects import Projects
from homewire.store.scripts.users import CREATE_USER, DELETE_USER, LEAVE_HOMES

HOMES_LEFT: Final = 150
"""Homes that a deleted user leaves in one script, which touches five elements for each, of 1,000."""


class Users:
    """The users of a project."""

    def __init__(self, database: Database, projects: Projects) -> None:
        self._database = database
        self._projects = projects
        self._passwords = Passwords()

    async def create(
        self,
        project_id: int,
        name: str,
        email: str | None = None,
        phone: str | None = None,
        password: str | None = None,
        external_key: str | None = None,
    ) -> User:
        """A new user. An e-mail project wants `email`, a phone project `phone`, a BYOU project neither.

        Raises InvalidInput, UnknownRecord (project), Conflict (EMAIL_IN_USE, USER_EXISTS).
        """
        project = await self._projects.get(project_id)
        if project is None:
            raise UnknownRecord("project", project_id)
        checks.name("name", name)
        _check_accounts(project, email, phone, password, external_key)
        email = checks.email(email) if email is not None else None
        phone = checks.phone(phone) if phone is not None else None
        password_hash = await self._passwords.hash(password) if password is not None else ""
        user = User(
            await self._database.new_id(), project_id, name, self._database.now_ms(),
            email, phone, external_key=external_key,
        )  # fmt: skip
        require_ok(await self._store(user, password_hash), project=project_id)
        return user

    async def get(self, project_id: int, user_id: int) -> User | None:
        """A user, None if there is none of this id."""
        record = await self._database.read_hash(ProjectSlot(project_id).user(user_id))
        return _user(project_id, user_id, record) if record else None

    async def by_email(self, project_id: int, email: str) -> User | None:
        """The user of an e-mail address, in whatever case it is written."""
        try:
            unique = checks.email(email).lower()
        except InvalidInput:
            return None
        return await self._by(project_id, ProjectSlot(project_id).emails, unique)

    async def by_phone(self, project_id: int, phone: str) -> User | None:
        """The user of a phone number, given with its country code."""
        try:
            unique = checks.phone(phone)
        except InvalidInput:
            return None
        return await self._by(project_id, ProjectSlot(project_id).phones, unique)

    async def has_password(self, project_id: int, user_id: int, password: str) -> bool:
        """Whether this is the user's password. Takes some 36 ms, off the event loop."""
        record = await self._database.read_hash(ProjectSlot(project_id).user(user_id))
        stored = record.get("password", "")
        return bool(stored) and await self._passwords.verify(stored, password)

    async def delete(self, project_id: int, user_id: int) -> None:
        """Delete a user. Sessions and keys are gone in the same step, memberships after it.

        A crash half-way leaves stale members; `sweep` removes them, or deleting again. Raises UnknownRecord.
        """
        departing = ProjectSlot(project_id).departing_users
        for _ in range(ATTEMPTS):
            answer = await self._remove(project_id, user_id)
            if answer[0] != "moved":
                if answer[0] == "ok" or not await self._database.present(departing, [user_id]):
                    require_ok(answer, project=project_id, user=user_id)
                return await self._leave_homes(project_id, user_id)
        raise outrun("user")

    async def sweep(self, project_id: int) -> None:
        """Finish what a crash interrupted: take deleted users out of their homes."""
        async for page in self._database.index_pages(ProjectSlot(project_id).departing_users):
            for user_id in page:
                await self._leave_homes(project_id, user_id)

    async def _by(self, project_id: int, directory: str, value: str) -> User | None:
        user_id = await self._database.read("HGET", directory, value)
        return await self.get(project_id, int(user_id)) if user_id else None

    async def _store(self, user: User, password_hash: str) -> list[str]:
        slot = ProjectSlot(user.project_id)
        email = user.email or ""
        return await self._database.change(
            CREATE_USER,
            slot,
            [
                slot.user(user.id), slot.users,
                slot.emails, slot.phones, slot.external_keys,
            ],
            [
                user.id, user.created_ms, user.name, password_hash, email, email.lower(),
                user.phone or "", user.external_key or "",
            ],
        )  # fmt: skip

    async def _remove(self, project_id: int, user_id: int) -> list[str]:
        slot = ProjectSlot(project_id)
        # At most sessions.MAX_SESSIONS, so all of them in one page and one script.
        reply = await self._database.read("ZRANGE", slot.user_sessions(user_id), 0, -1)
        ids = [member.decode() for member in reply]
        records = await self._database.read_hashes([slot.session(session_id) for session_id in ids])
        sessions = [
            name
            for session_id, record in zip(ids, records, strict=True)
            # An expired session may have lost its record already, and its key with it.
            for name in (slot.session(session_id), slot.key(record.get("key", "gone")))
        ]
        return await self._database.change(
            DELETE_USER,
            slot,
            [
                slot.user(user_id), slot.users, slot.emails, slot.phones, slot.external_keys,
                slot.user_sessions(user_id), slot.departing_users, slot.user_homes(user_id), *sessions,
            ],
            [user_id, len(ids), *ids],
        )  # fmt: skip

    async def _leave_homes(self, project_id: int, user_id: int) -> None:
        slot = ProjectSlot(project_id)
        # With the deleted homes, which `Homes.of_user` leaves out.
        async for page in self._database.index_pages(slot.user_homes(user_id)):
            for start in range(0, len(page), HOMES_LEFT):
                homes = page[start : start + HOMES_LEFT]
                names = [name for each in homes for name in (slot.home(each), slot.home_members(each))]
                answer = await self._database.change(
                    LEAVE_HOMES, slot, [slot.user_homes(user_id), *names], [user_id, *homes]
                )
                require_ok(answer, project=project_id)
        await self._database.write("ZREM", slot.departing_users, user_id)


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
        record["external_key"] or None,
    )  # fmt: skip
