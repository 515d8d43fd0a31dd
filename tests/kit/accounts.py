"""A project of one account system: requests of its apps, and messages to its users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from homewire.messages.models import Message
from homewire.messages.queue import stored_messages
from homewire.projects.models import AccountSystem, KeyScope
from homewire.sealing import Sealer
from homewire.sessions.models import ClientInfo
from homewire.settings import Settings
from kit.node import NodeProcess
from kit.tenant import Reply, Tenant, tenant_of

APP: Final = "controller_app"
PASSWORD: Final = "correct horse"
EMAIL: Final = "Ada@example.com"
PHONE: Final = "+14155550123"


@dataclass
class Accounts:
    """A project with one app."""

    node: NodeProcess
    tenant: Tenant

    @property
    def project(self) -> int:
        return self.tenant.project

    async def register(self, **body: Any) -> Reply:
        return await self.tenant.ask("POST", "/users", None, {"projectId": self.project, **body})

    async def sign_in(self, key: str | None = None, **body: Any) -> Reply:
        """With the project and its app, unless `body` says otherwise."""
        form = {"projectId": self.project, "appId": APP, **body}
        given = {name: value for name, value in form.items() if value is not None}
        return await self.tenant.ask("POST", "/auth/user", key, data=given)

    async def start(self, what: str, **body: Any) -> Reply:
        """Ask for a message: `sms`, `emailVerification/start` or `passwordReset/start`."""
        return await self.post(f"/auth/user/{what}", projectId=self.project, **body)

    async def post(self, path: str, **form: Any) -> Reply:
        """A web form, without a key."""
        return await self.tenant.ask("POST", path, None, data=form)

    async def messages(self, to: str | None = None) -> list[Message]:
        """The messages to users of the project, oldest first."""
        sealer = Sealer.of(Settings(data_dir=self.node.data_dir))
        found = [kept.queued.message for kept in await stored_messages(self.tenant.redis, sealer)]
        return [each for each in found if each.project_id == self.project and to in (None, each.to)]

    async def token(self) -> str:
        """The token of the newest message."""
        return (await self.messages())[-1].token

    async def code(self) -> str:
        return (await self.messages())[-1].code

    async def project_key(self, *permissions: KeyScope) -> str:
        return (await self.tenant.store.project_keys.create(self.project, "key", permissions))[1]

    async def member(self, email: str = EMAIL) -> int:
        """A verified user of an e-mail project."""
        user = await self.tenant.store.users.create(
            self.project, "Ada", email=email, password=PASSWORD, verified=True
        )
        return user.id

    async def key(self, user: int) -> str:
        return (
            await self.tenant.store.sessions.open(self.project, user, APP, ClientInfo(user_agent="test"))
        )[1]


@asynccontextmanager
async def accounts_of(
    node: NodeProcess, accounts: AccountSystem, *, on_demand: bool = False
) -> AsyncIterator[Accounts]:
    """A new project on the node."""
    async with tenant_of(node, accounts, on_demand=on_demand) as tenant:
        await tenant.store.apps.create(tenant.project, APP)
        yield Accounts(node, tenant)


def field(reply: Reply) -> str:
    """The field that a refusal names."""
    assert reply.status == 403, reply
    return str(reply.body["data"]["field"])


def reason(reply: Reply) -> str:
    assert reply.status == 403, reply
    return str(reply.body["reason"])
