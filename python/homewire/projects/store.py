"""Projects: tenants. Deleting one is a tombstone, and a sweep that can be resumed.

Apps: what users of a project sign in with.

Project keys: keys that speak for the project itself, with permissions.

Replacing the token of a record that has exactly one: a device, a project key.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import Final

from homewire.access_changes.records import RecordType
from homewire.auth import tokens
from homewire.errors import UnknownRecord
from homewire.projects.models import (
    AccessControl,
    AccountSystem,
    Invitations,
    KeyScope,
    OfflineCommands,
    Project,
    ProjectKey,
)
from homewire.sessions.store import Sessions
from homewire.store import checks
from homewire.store.database import ATTEMPTS, CLEANUP_DELAY_MS, PAGE, Database, require_ok, retries_exhausted
from homewire.store.keys import DELETED_PROJECTS, PROJECTS, UNFINISHED, ProjectSlot
from homewire.store.script import Script, changing, lua, removing, standalone

UNLIST_PROJECT: Final = standalone(lua(__package__, "unlist_project"))
DELETE_PROJECT: Final = removing(lua(__package__, "delete_project"), announces={RecordType.PROJECT_DELETED})
DISABLE_PROJECT: Final = removing(
    lua(__package__, "disable_project"), announces={RecordType.PROJECT_DISABLED}
)
ENABLE_PROJECT: Final = removing(lua(__package__, "enable_project"), announces={RecordType.PROJECT_ENABLED})
CONFIGURE_PROJECT: Final = changing(
    lua(__package__, "configure_project"), announces={RecordType.PROJECT_ENABLED}
)
CREATE_APP: Final = changing(lua(__package__, "create_app"), charges=True)
DELETE_APP: Final = removing(lua(__package__, "delete_app"), charges=True)
CREATE_PROJECT_KEY: Final = changing(lua(__package__, "create_project_key"), charges=True)
REVOKE_PROJECT_KEY: Final = removing(
    lua(__package__, "revoke_project_key"), announces={RecordType.KEY_ENDED}, charges=True
)
ROTATE_KEY: Final = changing(lua(__package__, "rotate_key"), announces={RecordType.KEY_ENDED})


class Projects:
    """The projects of the deployment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        accounts: AccountSystem,
        access_control: AccessControl = AccessControl.MEMBERSHIP,
        on_demand_provisioning: bool = False,
    ) -> Project:
        """Create a project. Its account system never changes."""
        checks.name("name", name)
        project = Project(
            await self._database.new_id(),
            name,
            AccountSystem(accounts),
            AccessControl(access_control),
            on_demand_provisioning,
            self._database.now_ms(),
        )
        # It is listed first: a crash in between leaves an id without a project, and no project without an id.
        await self._database.write("ZADD", PROJECTS, project.id, project.id)
        await self._database.write("HSET", ProjectSlot(project.id).project, *_fields(project))
        return project

    async def get(self, project_id: int) -> Project | None:
        """A project, disabled ones, too; None if it does not exist or was deleted."""
        return _project(project_id, await self._database.read_hash(ProjectSlot(project_id).project))

    async def list(self) -> builtins.list[Project]:
        """All projects, by id."""
        found: builtins.list[Project] = []
        async for page in self._database.index_pages(PROJECTS):
            for project_id in page:
                # One by one: each lies in another slot.
                project = await self.get(project_id)
                if project is not None:
                    found.append(project)
        return found

    async def only(self) -> int | None:
        """The id of the only project that is not disabled; None if there are several, or none."""
        ids, total = await self._database.index_slice(PROJECTS, 0, PAGE)
        if total > len(ids):
            return None
        found: builtins.list[int] = []
        for project_id in ids:
            project = await self.get(project_id)
            if project is not None and not project.disabled:
                found.append(project_id)
            if len(found) > 1:
                break
        return found[0] if len(found) == 1 else None

    async def configure(
        self,
        project_id: int,
        *,
        verification_url: str | None = None,
        password_reset_url: str | None = None,
        offline_commands: OfflineCommands | None = None,
        invitations: Invitations | None = None,
        sms_country_codes: str | None = None,
    ) -> None:
        """Set what the links in mails look like: a URL with `{token}`; empty for the page of ours. And what
        becomes of commands to devices that are not connected, and whether a member whom a stranger added
        has to accept. And where SMS go to: country calling codes; empty for those of the deployment.

        What is None stays. Raises UnknownRecord, InvalidInput.
        """
        changes: builtins.list[str] = []
        if verification_url is not None:
            changes += "verification_url", checks.link_template("verificationUrl", verification_url)
        if password_reset_url is not None:
            changes += "password_reset_url", checks.link_template("passwordResetUrl", password_reset_url)
        if offline_commands is not None:
            changes += "offline_commands", offline_commands.value
        if invitations is not None:
            changes += "invitations", Invitations(invitations).value
        if sms_country_codes is not None:
            changes += "sms_country_codes", checks.country_codes("smsCountryCodes", sms_country_codes)
        if changes:
            slot = ProjectSlot(project_id)
            require_ok(await self._database.change(CONFIGURE_PROJECT, slot, [], changes), project=project_id)

    async def disable(self, project_id: int) -> None:
        """Make all keys of a project invalid until it is enabled again. Raises UnknownRecord."""
        await self._switch(DISABLE_PROJECT, project_id)

    async def enable(self, project_id: int) -> None:
        """Undo `disable`. Raises UnknownRecord."""
        await self._switch(ENABLE_PROJECT, project_id)

    async def delete(self, project_id: int) -> None:
        """Delete a project: all its keys are invalid when this returns. `sweep` removes its records.

        A crash half-way is made good by housekeeping, or by deleting again. Raises UnknownRecord.
        """
        await self._database.change_outside(
            UNLIST_PROJECT, [PROJECTS, DELETED_PROJECTS, UNFINISHED], [project_id, CLEANUP_DELAY_MS]
        )
        if project_id not in await self._database.present(DELETED_PROJECTS, [project_id]):
            raise UnknownRecord("project", project_id)
        await self._mark_deleted(project_id)

    async def deleted(self) -> builtins.list[int]:
        """Deleted projects that still have records to sweep."""
        return [each async for page in self._database.index_pages(DELETED_PROJECTS) for each in page]

    async def sweep(self, project_id: int) -> int:
        """Remove the records of a deleted project. Returns the number of Redis keys. It can be resumed."""
        if project_id not in await self._database.present(DELETED_PROJECTS, [project_id]):
            raise UnknownRecord("deleted project", project_id)
        slot = ProjectSlot(project_id)
        # The outbox is deleted, too: its records are relayed before.
        await self._mark_deleted(project_id)
        removed = 0
        async for names in self._database.scan(slot.prefix + "*", PAGE):
            # The tombstone goes last: until then it refuses changes that would leave new records behind.
            rest = [name for name in names if name != slot.project.encode()]
            removed += int(await self._database.write("UNLINK", *rest)) if rest else 0
        removed += int(await self._database.write("UNLINK", slot.project))
        await self._database.write("ZREM", DELETED_PROJECTS, project_id)
        return removed

    async def _switch(self, script: Script, project_id: int) -> None:
        answer = await self._database.change(script, ProjectSlot(project_id), [])
        require_ok(answer, project=project_id)

    async def _mark_deleted(self, project_id: int) -> None:
        answer = await self._database.change(DELETE_PROJECT, ProjectSlot(project_id), [])
        if answer != ["unknown", "project"]:  # As it is when it was buried before.
            require_ok(answer)


def _fields(project: Project) -> tuple[str | int, ...]:
    return (
        "name", project.name,
        "accounts", project.accounts.value,
        "access_control", project.access_control.value,
        "on_demand", int(project.on_demand_provisioning),
        "created", project.created_ms,
        "state", "live",
    )  # fmt: skip


def _project(project_id: int, record: Mapping[str, str]) -> Project | None:
    if record.get("state", "deleted") == "deleted" or "name" not in record:
        return None
    return Project(
        project_id,
        record["name"],
        AccountSystem(record["accounts"]),
        AccessControl(record["access_control"]),
        record["on_demand"] == "1",
        int(record["created"]),
        record["state"] == "disabled",
        record.get("verification_url", ""),
        record.get("password_reset_url", ""),
        OfflineCommands(record.get("offline_commands", "drop")),
        Invitations(record.get("invitations", Invitations.ACCEPT)),
        record.get("sms_country_codes", ""),
    )


class Apps:
    """The apps of a project. Their ids are chosen by the operator."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: int, app_id: str) -> None:
        """Register an app. Raises Conflict if the project has it, UnknownRecord without the project."""
        slot = ProjectSlot(project_id)
        answer = await self._database.change(
            CREATE_APP,
            slot,
            [slot.apps],
            [checks.app_id(app_id), self._database.now_ms()],
        )
        require_ok(answer, project=project_id)

    async def delete(self, project_id: int, app_id: str) -> None:
        """Delete an app: no new session can name it. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        answer = await self._database.change(DELETE_APP, slot, [slot.apps], [checks.app_id(app_id)])
        require_ok(answer, project=project_id, app=app_id)

    async def list(self, project_id: int) -> builtins.list[tuple[str, int]]:
        """The apps by id, each with the time of its creation in ms."""
        found = dict[str, int]()
        async for fields, _ in self._database.hash_pages(ProjectSlot(project_id).apps):
            found.update((app_id.decode(), int(created)) for app_id, created in fields.items())
        return sorted(found.items())

    async def exists(self, project_id: int, app_id: str) -> bool:
        """Whether the project has the app."""
        checks.text("appId", app_id)
        return bool(await self._database.read("HEXISTS", ProjectSlot(project_id).apps, app_id))


class ProjectKeys:
    """The project keys of a project."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, project_id: int, name: str, scopes: Iterable[KeyScope]) -> tuple[ProjectKey, str]:
        """Create a key. Returns it and its token, which is not stored. Raises UnknownRecord without the
        project."""
        checks.name("name", name)
        granted = frozenset(map(KeyScope, scopes))
        key_id, now = await self._database.new_id(), self._database.now_ms()
        slot, (token, reference) = ProjectSlot(project_id), tokens.mint(project_id)
        answer = await self._database.change(
            CREATE_PROJECT_KEY,
            slot,
            [slot.project_key(key_id), slot.project_keys, slot.key(reference.hash)],
            [key_id, reference.hash, name, " ".join(sorted(granted)), now],
        )
        require_ok(answer, project=project_id)
        return ProjectKey(key_id, project_id, name, granted, now), token

    async def list(self, project_id: int) -> list[ProjectKey]:
        """All keys of the project, by id, without their tokens."""
        slot = ProjectSlot(project_id)
        found: list[ProjectKey] = []
        async for page in self._database.index_pages(slot.project_keys):
            records = await self._database.read_hashes([slot.project_key(key_id) for key_id in page])
            found += [
                _project_key(project_id, key_id, record)
                for key_id, record in zip(page, records, strict=True)
                if record
            ]
        return found

    async def revoke(self, project_id: int, key_id: int) -> None:
        """Revoke a key: it is invalid when this returns. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        for _ in range(ATTEMPTS):
            token_hash = (await self._database.read_hash(slot.project_key(key_id))).get("key")
            if token_hash is None:
                raise UnknownRecord("project key", key_id)
            answer = await self._database.change(
                REVOKE_PROJECT_KEY,
                slot,
                [slot.project_key(key_id), slot.project_keys, slot.key(token_hash)],
                [key_id, token_hash],
            )
            if answer[0] != "moved":
                return require_ok(answer, project=project_id)
        raise retries_exhausted("project key")

    async def rotate(self, project_id: int, key_id: int) -> str:
        """Replace the token of a key: the old one is invalid when this returns. Raises UnknownRecord."""
        slot = ProjectSlot(project_id)
        token = await rotate(self._database, slot, slot.project_key(key_id), project_key=key_id)
        if token is None:
            raise UnknownRecord("project key", key_id)
        return token


def _project_key(project_id: int, key_id: int, record: dict[str, str]) -> ProjectKey:
    granted = frozenset(KeyScope(word) for word in record["permissions"].split())
    return ProjectKey(key_id, project_id, record["name"], granted, int(record["created"]))


async def rotate(
    database: Database,
    slot: ProjectSlot,
    record: str,
    *,
    device: int = 0,
    project_key: int = 0,
    sessions: Sessions | None = None,
) -> str | None:
    """A new token for the record of that name, which is that of a device or a project key.

    The old one dies in the same step; of a device, its `sessions` end before. None: no such record.
    """
    index = [slot.device_sessions(device)] if device else []
    for _ in range(ATTEMPTS):
        old = (await database.read_hash(record)).get("key")
        if old is None:
            return None
        token, reference = tokens.mint(slot.project_id)
        answer = await database.change(
            ROTATE_KEY,
            slot,
            [record, slot.key(old), slot.key(reference.hash), *index],
            [old, reference.hash, device, project_key],
        )
        if answer[0] == "in_session" and sessions is not None:
            await sessions.end_all_of_device(slot.project_id, device)
        elif answer[0] != "moved":
            require_ok(answer, project=slot.project_id)
            return token
    raise retries_exhausted("key")
