"""A project with the callers of the access table and the records that their requests name."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from homewire.auth.tokens import mint
from homewire.kv.store import Owner, ValueLimits
from homewire.sessions.models import ClientInfo, Lifetime
from homewire.users.models import ProofKind
from homewire.webhooks.models import ModuleType
from kit.node import NodeProcess
from kit.tenant import DEFAULT_PROJECT, SCOPES, Account, Tenant, tenant_of

PASSWORD: Final = "correct horse"

CALLERS: Final = {
    "none": "no key at all",
    "garbage": "something that is no key",
    "revoked": "a user's key that was ended",
    "expired": "a user's key whose time is over",
    "owner": "the user who owns the home",
    "member": "another member of it",
    "stranger": "a user who is no member",
    "unverified": "a member whose address was never verified",
    "alien": "a user of another project",
    "own": "the device that is asked about",
    "other": "another device of the same home",
    "away": "a device of another home",
    "bare": "a project key without any permission",
    "read": "project keys, each with one permission",
    "write-kv": "",
    "send-command": "",
    "send-event": "",
    "byou": "",
    "admin": "",
    "foreign": "a key of another project that may do everything there",
}

APP: Final = "controller_app"
SHARDS: Final = 64


@dataclass
class AccessProject:
    """The project of `accounts`, the keys of its callers, and names of its records."""

    tenant: Tenant
    accounts: str
    access_control: str
    on_demand: bool
    keys: dict[str, str | None] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    """What a request of the table can name, as `{name}`."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(10_000))

    async def value(self, name: str) -> Any:
        """The value of `{name}` in a request. A name with the prefix `new_` has a new value each time."""
        make: Callable[[], Awaitable[Any]] | None = getattr(self, f"_{name}", None)
        return self.known[name] if make is None else await make()

    async def person(self, verified: bool = True) -> Account:
        """A user of this project, with a key."""
        tenant, number = self.tenant, next(self._numbers)
        email = await self._new_email() if self.accounts == "email" else None
        phone = await self._new_phone() if self.accounts == "phone" else None
        user = await tenant.store.users.create(
            tenant.project, f"user {number}", email=email, phone=phone, verified=verified
        )
        _, key = await tenant.session(user.id, APP)
        return Account(user.id, key)

    async def _new_email(self) -> str:
        return f"{next(self._numbers)}@example.com"

    async def _new_phone(self) -> str:
        return f"+1415555{next(self._numbers) % 10_000:04}"

    async def _new_home(self) -> int:
        """A home with the same members."""
        store, project = self.tenant.store, self.tenant.project
        home = await self.tenant.home(Account(self.known["owner"], ""))
        for account in ("member", "unverified"):
            await store.homes.add_member(project, home, self.known[account])
        return home

    async def _new_session(self) -> str:
        """One more of the owner's."""
        store, project = self.tenant.store, self.tenant.project
        return (await store.sessions.open(project, self.known["owner"], APP, ClientInfo()))[0].id

    async def _new_user(self) -> int:
        return (await self.person()).id

    async def _new_credentials(self) -> dict[str, Any]:
        """What a user of a built-in account system signs in with: a new one, where it works once."""
        store, project, app = self.tenant.store, self.tenant.project, {"appId": APP}
        if self.accounts == "email":
            if "password_user" not in self.known:
                # One for all: a password can be used again, and to hash one takes long.
                self.known["password_user"] = email = await self._new_email()
                await store.users.create(project, "user", email=email, password=PASSWORD, verified=True)
            email = self.known["password_user"]
            return {"projectId": project, **app, "email": email, "password": PASSWORD}
        user = await store.users.create(project, "user", phone=await self._new_phone())
        code = await store.verifications.issue_code(project, user.id, 60_000)
        return {"projectId": project, **app, "phoneNumber": user.phone, "code": code}

    async def _logIn(self) -> dict[str, str]:
        """Credentials of a user of the default project, for logins that name no project."""
        if "default_user" not in self.known:
            # One for all: see `_new_credentials`.
            self.known["default_email"] = email = f"{uuid4()}@example.com"
            user = await self.tenant.store.users.create(
                DEFAULT_PROJECT, "user", email=email, password=PASSWORD, verified=True
            )
            self.known["default_user"] = user.id
        return {"login": self.known["default_email"], "password": PASSWORD}

    async def _new_rocket_chat_login(self) -> dict[str, str]:
        known = await self._logIn()
        return {"user": known["login"], "password": known["password"]}

    async def _logInWithToken(self) -> dict[str, str]:
        await self._logIn()
        token, _ = await self.tenant.store.login_tokens.create(
            DEFAULT_PROJECT, self.known["default_user"], 60_000
        )
        return {"token": token}

    async def _logInNode(self) -> dict[str, Any]:
        device, key, _ = await self.tenant.store.devices.create(DEFAULT_PROJECT, "lamp")
        return {"login": device.id, "password": key}

    async def _new_registered_phone(self) -> str:
        phone = await self._new_phone()
        await self.tenant.store.users.create(self.tenant.project, "user", phone=phone)
        return phone

    async def _new_verification(self) -> str:
        return await self._token(ProofKind.EMAIL_VERIFICATION)

    async def _new_password_reset(self) -> str:
        return await self._token(ProofKind.PASSWORD_RESET)

    async def _token(self, kind: ProofKind) -> str:
        # A verified user has nothing to verify.
        user = (await self.person(verified=kind is not ProofKind.EMAIL_VERIFICATION)).id
        return await self.tenant.store.verifications.issue_token(self.tenant.project, user, kind, 60_000)

    async def _permitted_home(self) -> int:
        """The home that the stranger has the permission to read."""
        await self.tenant.grant(self.known["stranger"], f"read:home-events:{self.known['home']}")
        return int(self.known["home"])

    async def _new_group(self) -> int:
        """A group that may write the home, with one in it: `{group_member}`."""
        groups, project, known = self.tenant.store.groups, self.tenant.project, self.known
        group = (await groups.create(project, "group")).id
        known["group_member"] = await self._new_user()
        await groups.enter(project, group, known["group_member"])
        await self.tenant.grant_group(group, f"write:home:{known['home']}")
        return group

    async def _new_member(self) -> int:
        """Another member of the home."""
        user = await self.person()
        await self.tenant.store.homes.add_member(self.tenant.project, self.known["home"], user.id)
        return user.id

    async def _new_device(self) -> int:
        return (await self.tenant.device(self.known["home"])).id

    async def _new_claim_code(self) -> str:
        """The id of a device that can be claimed."""
        devices, project = self.tenant.store.devices, self.tenant.project
        device, _, claim_code = await devices.create(project, "lamp")
        await devices.set_claimable(project, device.id, self.tenant.store.now_ms() + 60_000)
        return claim_code

    async def _new_token(self) -> str:
        """To provision a device with, in the home."""
        begin, known = self.tenant.store.provisioning.begin, self.known
        return (await begin(self.tenant.project, known["home"], known["owner"], "lamp"))[0]

    async def _new_value(self) -> str:
        """A key under which the home has a value."""
        return await self._put_value(Owner(self.tenant.project, "home", self.known["home"]))

    async def _new_device_value(self) -> str:
        """A key under which the device `own` has a value."""
        return await self._put_value(Owner(self.tenant.project, "device", self.known["own"]))

    async def _put_value(self, owner: Owner) -> str:
        key = f"key-{next(self._numbers)}"
        await self.tenant.store.key_values.put(owner, key, b"1", ValueLimits(100_000, 1 << 26))
        return key

    async def _new_entity(self) -> str:
        """An entity of the home."""
        entity_id = await self._new_entity_id()
        await self.tenant.entity(entity_id, self.known["home"])
        return entity_id

    async def _new_entity_id(self) -> str:
        return f"entity {next(self._numbers)}"


@asynccontextmanager
async def world_of(node: NodeProcess, accounts: str, access_control: str) -> AsyncIterator[AccessProject]:
    """A project on the node. With access by permission its devices are provisioned on demand, else before."""
    on_demand = access_control == "permission"
    async with (
        tenant_of(node, accounts, access_control, on_demand) as tenant,
        tenant_of(node) as elsewhere,
    ):
        await tenant.store.apps.create(tenant.project, APP)
        subject = AccessProject(tenant, accounts, access_control, on_demand)
        await _people(subject)
        await _things(subject)
        await _dead_keys(subject)
        await _project_keys(subject)
        subject.keys["alien"] = (await elsewhere.user()).key
        foreign = await elsewhere.project_key("admin")
        subject.keys["foreign"] = foreign
        assert subject.keys.keys() == CALLERS.keys()
        yield subject


async def _people(subject: AccessProject) -> None:
    for account in ("owner", "member", "stranger", "unverified"):
        person = await subject.person(verified=account != "unverified")
        subject.known[account], subject.keys[account] = person.id, person.key
    subject.known |= {"project": subject.tenant.project, "app": APP}


async def _things(subject: AccessProject) -> None:
    tenant = subject.tenant
    subject.known["home"] = home = await subject.value("new_home")
    subject.known["other_home"] = await tenant.home(Account(subject.known["stranger"], ""))
    for account, where in (("own", home), ("other", home), ("away", subject.known["other_home"])):
        device = await tenant.device(where)
        subject.known[account], subject.keys[account] = device.id, device.key
    subject.known["module"] = "hook"
    await tenant.store.smart_modules.create(
        tenant.project, "hook", ModuleType.WEBHOOK, "", ["never"], None, "", "", SHARDS
    )


async def _dead_keys(subject: AccessProject) -> None:
    sessions, project, owner = subject.tenant.store.sessions, subject.tenant.project, subject.known["owner"]
    revoked, subject.keys["revoked"] = await sessions.open(project, owner, APP, ClientInfo(user_agent="test"))
    await sessions.end(project, revoked.id)
    _, subject.keys["expired"] = await sessions.open(
        project, owner, APP, ClientInfo(user_agent="test"), lifetime=Lifetime(1)
    )
    subject.keys["none"] = None
    subject.keys["garbage"] = mint(project)[0]


async def _project_keys(subject: AccessProject) -> None:
    subject.keys["bare"] = await subject.tenant.project_key()
    for scope in SCOPES:
        subject.keys[scope] = await subject.tenant.project_key(scope)
