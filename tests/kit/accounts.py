"""Tenants with an app: what users of an account system do by it, and messages to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from homewire.messages.models import Message
from homewire.messages.queue import stored_messages
from homewire.sealing import Sealer
from homewire.settings import Settings
from kit.node import NodeProcess
from kit.tenant import Reply, Tenant, tenant_of

APP: Final = "controller_app"
PASSWORD: Final = "correct horse"
EMAIL: Final = "Ada@example.com"
PHONE: Final = "+14155550123"


@dataclass
class TenantWithApp(Tenant):
    """A project with one app, and requests of the app for its users."""

    node: NodeProcess

    async def register(self, **body: Any) -> Reply:
        return await self.ask("POST", "/users", None, {"projectId": self.project, **body})

    async def sign_in(self, key: str | None = None, **body: Any) -> Reply:
        """With the project and its app, unless `body` says otherwise."""
        form = {"projectId": self.project, "appId": APP, **body}
        given = {name: value for name, value in form.items() if value is not None}
        return await self.ask("POST", "/auth/user", key, data=given)

    async def start(self, what: str, **body: Any) -> Reply:
        """Ask for a message: `sms`, `emailVerification/start` or `passwordReset/start`."""
        return await self.post(f"/auth/user/{what}", projectId=self.project, **body)

    async def post(self, path: str, **form: Any) -> Reply:
        """A web form, without a key."""
        return await self.ask("POST", path, None, data=form)

    async def messages(self, to: str | None = None) -> list[Message]:
        """The messages to users of the project, oldest first."""
        sealer = Sealer.of(Settings(data_dir=self.node.data_dir))
        found = [kept.queued.message for kept in await stored_messages(self.redis, sealer)]
        return [each for each in found if each.project_id == self.project and to in (None, each.to)]

    async def token(self) -> str:
        """The token of the newest message."""
        return (await self.messages())[-1].token

    async def code(self) -> str:
        return (await self.messages())[-1].code

    async def member(self, email: str = EMAIL) -> int:
        """A verified user of an e-mail project."""
        user = await self.store.users.create(
            self.project, "Ada", email=email, password=PASSWORD, verified=True
        )
        return user.id

    async def key_of(self, user: int) -> str:
        """The key of a new session of the user."""
        return (await self.session(user, APP))[1]


@asynccontextmanager
async def tenant_with_app(
    node: NodeProcess, accounts: str, *, on_demand: bool = False
) -> AsyncIterator[TenantWithApp]:
    """A new project on the node, with an app."""
    async with tenant_of(node, accounts, on_demand=on_demand) as tenant:
        await tenant.store.apps.create(tenant.project, APP)
        key, key_id, http = tenant.key, tenant.key_id, tenant.http
        yield TenantWithApp(tenant.store, tenant.redis, tenant.project, tenant.url, key, key_id, http, node)


def field(reply: Reply) -> str:
    """The field that a refusal names."""
    assert reply.status == 403, reply
    return str(reply.body["data"]["field"])


def reason(reply: Reply) -> str:
    assert reply.status == 403, reply
    return str(reply.body["reason"])
