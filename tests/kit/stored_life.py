"""A random life of a project's records: whatever can be stored and deleted, in any order, many at once."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from homewire.clock import MACHINE_CLOCK
from homewire.entities.store import Entity
from homewire.errors import Conflict, InvalidInput, StoreError, UnknownRecord
from homewire.events.queued_commands import QueueBounds, QueuedCommand
from homewire.homes.members import Invitee
from homewire.homes.models import Role
from homewire.kv.store import Owner, ValueLimits
from homewire.permissions.models import Permission, PermissionKind
from homewire.projects.models import KeyScope, Project
from homewire.repositories import Store
from homewire.sessions.activity import NOTE_INTERVAL_MS, SessionUse
from homewire.sessions.models import ClientInfo
from homewire.webhooks.models import ModuleType

T = TypeVar("T")
ROOMY = ValueLimits(1000, 10_000_000)
MINUTE_MS = 60_000


@dataclass
class StoredLife:
    """What there is, or was, of one project with e-mail accounts."""

    store: Store
    project: Project
    random: Random
    users: list[int] = field(default_factory=list)
    homes: list[int] = field(default_factory=list)
    devices: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    entities: list[str] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    provisioning: list[str] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def step(self) -> None:
        """One change; what the store refuses, because others were there first, is refused."""
        change = self.random.choice(self._changes())
        # IndexError: nothing of that kind was made yet.
        with suppress(StoreError, InvalidInput, IndexError):
            await change()

    async def end(self) -> None:
        """Delete all that can be deleted."""
        project, store = self.project.id, self.store
        ids, _ = await store.users.list(project)
        for user in ids:
            await store.users.delete(project, user.id)
        for home_id in (await store.homes.slice(project))[0]:
            await store.homes.delete(project, home_id)
        for device in (await store.devices.page(project))[0]:
            await store.devices.delete(project, device.id)
        for group in self.groups:
            await _though_gone(store.groups.delete(project, group))
        for key in await store.project_keys.list(project):
            await store.project_keys.revoke(project, key.id)
        for module in await store.smart_modules.list(project):
            await store.smart_modules.delete(project, module.id)

    def _changes(self) -> Sequence[Callable[[], Awaitable[None]]]:
        return (
            self._user, self._user, self._home, self._home, self._home, self._home,
            self._device, self._device, self._group, self._session,
            self._session, self._entity, self._entity, self._key, self._module, self._value, self._value,
            self._value, self._command, self._command, self._member, self._member, self._invitation,
            self._provisioning, self._grant, self._grant, self._group_right, self._enter, self._enter,
            self._claim, self._move, self._redeem, self._update_entity,
            self._end_session, self._use_session, self._use_session, self._delete_value,
            self._delete_entity, self._quit, self._revoke,
            self._revoke_from_group, self._remove_member, self._leave_home, self._delivered,
            self._any((self._delete_user, self._delete_home, self._delete_device, self._delete_group)),
        )  # fmt: skip

    def _any(self, found: Sequence[T]) -> T:
        """Of the newest: so the same ones are changed again and again."""
        return self.random.choice(found[-6:])

    def _right(self) -> Permission:
        kind = self._any(list(PermissionKind))
        subjects = {
            "home": list(map(str, self.homes)),
            "device": list(map(str, self.devices)),
            "entity": self.entities,
        }
        return Permission(kind, self._any(subjects[kind.noun]))

    def _owner(self) -> Owner:
        if self.random.random() < 0.5:
            return Owner(self.project.id, "home", self._any(self.homes))
        return Owner(self.project.id, "device", self._any(self.devices))

    def _content(self) -> bytes:
        return b'"%b"' % (b"x" * self.random.randrange(500))

    async def _user(self) -> None:
        email = f"user{next(self._numbers)}@example.com"
        self.users.append((await self.store.users.create(self.project.id, "user", email=email)).id)

    async def _home(self) -> None:
        home = await self.store.homes.create(self.project.id, "home", self._any(self.users))
        self.homes.append(home.id)

    async def _device(self) -> None:
        home = self._any([None, *self.homes])
        device, _, code = await self.store.devices.create(self.project.id, "lamp", home)
        self.devices.append(device.id)
        self.claims.append(code)
        await self.store.devices.set_claimable(self.project.id, device.id, MACHINE_CLOCK.now_ms() + MINUTE_MS)

    async def _group(self) -> None:
        self.groups.append((await self.store.groups.create(self.project.id, "group")).id)

    async def _session(self) -> None:
        login = ClientInfo(user_agent="x" * self.random.randrange(500))
        if self.random.random() < 0.8:
            opened, _ = await self.store.sessions.open(self.project.id, self._any(self.users), "app", login)
        else:
            opened, _ = await self.store.sessions.open_node(self.project.id, self._any(self.devices), login)
        self.sessions.append(opened.id)

    async def _entity(self) -> None:
        name = f"entity{next(self._numbers)}"
        parent = self._any([None, *self.entities[-3:]])
        entity = Entity(name, self.project.id, self._any(self.homes), "room", parent_id=parent)
        await self.store.entities.create(entity, 1000)
        self.entities.append(name)

    async def _update_entity(self) -> None:
        entity = await self.store.entities.get(self.project.id, self._any(self.entities))
        if entity is not None:
            description = "x" * self.random.randrange(200)
            await self.store.entities.update(entity, {"description": description, "parent_id": None})

    async def _key(self) -> None:
        key, _ = await self.store.project_keys.create(self.project.id, "key", {KeyScope.READ})
        if self.random.random() < 0.5:
            await self.store.project_keys.rotate(self.project.id, key.id)
            await self.store.project_keys.revoke(self.project.id, key.id)

    async def _module(self) -> None:
        name = f"module{next(self._numbers)}"
        kind, content = self._any(list(ModuleType)), "x" * self.random.randrange(200)
        await self.store.smart_modules.create(self.project.id, name, kind, "", [], None, content, content, 64)
        if self.random.random() < 0.5:
            await self.store.smart_modules.delete(self.project.id, name)

    async def _value(self) -> None:
        key = f"k{self.random.randrange(5)}"
        await self.store.key_values.put(self._owner(), key, self._content(), ROOMY)

    async def _delete_value(self) -> None:
        await self.store.key_values.delete(self._owner(), f"k{self.random.randrange(5)}")

    async def _command(self) -> None:
        expires = MACHINE_CLOCK.now_ms() + self._any((1, MINUTE_MS, MINUTE_MS + 1))
        command = QueuedCommand(self._any(self.devices), b"\x93", self._content(), expires)
        await self.store.queued_commands.add(self.project.id, command, QueueBounds(50, 100_000))

    async def _delivered(self) -> None:
        device = self._any(self.devices)
        last, _ = await self.store.queued_commands.read(self.project.id, device)
        await self.store.queued_commands.remove(self.project.id, device, range(1, last + 1)[-2:])

    async def _member(self) -> None:
        role = self._any(list(Role))
        await self.store.homes.add_member(self.project.id, self._any(self.homes), self._any(self.users), role)

    async def _invitation(self) -> None:
        invitee = Invitee(email=f"guest{self.random.randrange(20)}@example.com")
        _, person = await self.store.members.invite(self.project, self._any(self.homes), invitee)
        self.users.append(person.id)

    async def _remove_member(self) -> None:
        await self.store.homes.remove_member(self.project.id, self._any(self.homes), self._any(self.users))

    async def _provisioning(self) -> None:
        home = self._any(self.homes)
        members = await self.store.homes.members(self.project.id, home)
        token, _ = await self.store.provisioning.begin(
            self.project.id, home, self._any(members).user_id, "lamp"
        )
        self.provisioning.append(token)

    async def _redeem(self) -> None:
        token = self._any(self.provisioning)
        found = await self.store.provisioning.get(token)
        if found is not None:
            device, _ = await self.store.provisioning.redeem(token, found, None)
            self.devices.append(device.id)

    async def _grant(self) -> None:
        await self.store.permissions.grant(self.project.id, self._any(self.users), self._right())

    async def _revoke(self) -> None:
        user = self._any(self.users)
        held = await self.store.permissions.of_user(self.project.id, user)
        await self.store.permissions.revoke(self.project.id, user, self._any(held).permission)

    async def _group_right(self) -> None:
        await self.store.groups.grant(self.project.id, self._any(self.groups), self._right())

    async def _revoke_from_group(self) -> None:
        group = self._any(self.groups)
        permissions = await self.store.groups.permissions(self.project.id, group)
        await self.store.groups.revoke(self.project.id, group, self._any(permissions))

    async def _enter(self) -> None:
        await self.store.groups.enter(self.project.id, self._any(self.groups), self._any(self.users))

    async def _quit(self) -> None:
        await self.store.groups.quit(self.project.id, self._any(self.groups), self._any(self.users))

    async def _claim(self) -> None:
        home = self._any(self.homes)
        members = await self.store.homes.members(self.project.id, home)
        await self.store.devices.claim(
            self.project.id, self._any(self.claims), home, self._any(members).user_id
        )

    async def _move(self) -> None:
        await self.store.devices.move(
            self.project.id, self._any(self.devices), self._any([None, *self.homes])
        )

    async def _leave_home(self) -> None:
        device = await self.store.devices.get(self.project.id, self._any(self.devices))
        if device is not None:
            await self.store.devices.leave_home(device)

    async def _end_session(self) -> None:
        await self.store.sessions.end(self.project.id, self._any(self.sessions))

    async def _use_session(self) -> None:
        session = await self.store.sessions.get(self.project.id, self._any(self.sessions))
        if session is not None:
            later = session.last_access_ms + NOTE_INTERVAL_MS
            use = SessionUse(session.id, session.user_id, session.device_id, session.key_hash, later)
            await self.store.session_uses.touch(self.project.id, [use])

    async def _delete_entity(self) -> None:
        await self.store.entities.delete(self.project.id, self._any(self.entities))

    async def _delete_user(self) -> None:
        await self.store.users.delete(self.project.id, self._any(self.users))

    async def _delete_home(self) -> None:
        await self.store.homes.delete(self.project.id, self._any(self.homes))

    async def _delete_device(self) -> None:
        await self.store.devices.delete(self.project.id, self._any(self.devices))

    async def _delete_group(self) -> None:
        await self.store.groups.delete(self.project.id, self._any(self.groups))


async def _though_gone(change: Awaitable[None]) -> None:
    with suppress(UnknownRecord, Conflict):
        await change
