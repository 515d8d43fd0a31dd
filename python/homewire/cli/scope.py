"""The open store that a command on records works on, and the decorator of such commands."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec

import typer

from homewire import settings as settings_table
from homewire.cli.audit import audited
from homewire.cli.options import (
    DataDir,
    Json,
    Redis,
    RedisFile,
    given_redis,
    loaded,
    require_data_dir,
    take_options,
)
from homewire.cli.output import Answer, Pages, show, show_pages
from homewire.errors import ConfigurationError, NotConfirmed, Unavailable, UnknownRecord
from homewire.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis as Client

    from homewire.repositories import Store

P = ParamSpec("P")

_SHARED: Final = {
    "redis_url": (Redis, None),
    "redis_file": (RedisFile, None),
    "data_dir": (DataDir, None),
    "as_json": (Json, False),
}


@dataclass(frozen=True, slots=True)
class Scope:
    """The store that a command works on."""

    settings: Settings
    store: Store
    redis: Client
    """The client of the store's Redis."""

    def named(self, given: int | None) -> int:
        """The id of the given or default project, without a check. Raises BadParameter if there is none."""
        project = given if given is not None else self.settings.default_project
        if project is None:
            raise typer.BadParameter("missing; name a project", param_hint="--project")
        return project

    async def project(self, given: int | None) -> int:
        """The id of the given or default project. Raises UnknownRecord, and BadParameter like `named`."""
        project = self.named(given)
        if await self.store.projects.get(project) is None:
            raise UnknownRecord("project", project)
        return project

    async def project_of_home(self, given: int | None, home: int) -> int:
        """The project of a home; its id is unique in the deployment. Raises UnknownRecord."""
        for project in await self._candidates(given):
            if await self.store.homes.existing(project, [home]):
                return project
        raise UnknownRecord("home", home)

    async def project_of_device(self, given: int | None, device: int) -> int:
        """The project of a device; its id is unique in the deployment. Raises UnknownRecord."""
        for project in await self._candidates(given):
            if await self.store.devices.locate(project, [device]):
                return project
        raise UnknownRecord("device", device)

    async def project_of_user(self, given: int | None, user: int) -> int:
        """The project of a user; its id is unique in the deployment. Raises UnknownRecord."""
        for project in await self._candidates(given):
            if await self.store.users.get(project, user) is not None:
                return project
        raise UnknownRecord("user", user)

    async def _candidates(self, given: int | None) -> list[int]:
        if given is not None:
            return [await self.project(given)]
        return [project.id for project in await self.store.projects.list()]


@asynccontextmanager
async def reachable_redis(settings: Settings) -> AsyncIterator[str]:
    """The URL of the configured Redis, of the running embedded server, or of one that this command starts."""
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    from homewire.redis.embedded import EmbeddedServer

    async with EmbeddedServer.borrow(
        settings.data_dir,
        settings.durability,
        settings.embedded_cluster,
        settings.redis_binary,
        settings.redis_memory_bytes,
    ) as url:
        yield url


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """The configured store. Raises ConfigurationError if its Redis does not answer."""
    async with open_scope(settings) as scope:
        yield scope.store


@asynccontextmanager
async def open_scope(settings: Settings) -> AsyncIterator[Scope]:
    """The configured store and its Redis. Raises ConfigurationError if Redis does not answer."""
    from homewire.access_changes.relay import Relay
    from homewire.redis.connect import connect, translate_redis_errors
    from homewire.redis.deployment import Identity
    from homewire.redis.servers import Connections
    from homewire.repositories import Store

    async with reachable_redis(settings) as url:
        client = connect(url)
        Connections.of(client).servers.ack_replicas = settings.ack_replicas
        relay = Relay(client, settings.shards)
        try:
            with translate_redis_errors():
                await Identity.of_command(settings).establish(client)
                yield Scope(settings, Store.of(client, relay, settings), client)
        except NotConfirmed as error:
            raise ConfigurationError(
                f"{_at(url)} went away; whether the change was made is unknown"
            ) from error
        except Unavailable as error:
            raise ConfigurationError(f"{_at(url)} does not answer, or can't serve now") from error
        finally:
            await relay.close()
            await client.aclose()


def _at(url: str) -> str:
    return f"Redis at {settings_table.redacted(url)}"


def command(
    app: typer.Typer, name: str, *, changes: bool = False
) -> Callable[[Callable[Concatenate[Scope, P], Awaitable[Answer | Pages]]], Callable[..., None]]:
    """Make a command of an async function that takes a Scope. Its answer is printed.

    The function's own parameters become options; --redis, --data-dir and --json are added to them.
    A command that `changes` something writes an audit record.
    """
    called = " ".join(each for each in (app.info.name, name) if each and each != "homewire")

    def register(function: Callable[Concatenate[Scope, P], Awaitable[Answer | Pages]]) -> Callable[..., None]:
        def run(
            redis_url: str | None, redis_file: Path | None, data_dir: Any, as_json: bool, **options: Any
        ) -> None:
            settings = loaded(redis_url=given_redis(redis_url, redis_file), data_dir=data_dir)
            require_data_dir(settings)

            async def act() -> Answer | None:
                async with open_scope(settings) as scope:
                    running = function(scope, **options)  # type: ignore[call-arg]
                    answer = await (audited(scope.redis, called, options, running) if changes else running)
                    if not isinstance(answer, AsyncIterator):
                        return answer
                    await show_pages(answer, as_json)
                    return None

            answer = asyncio.run(act())
            if answer is not None:
                show(answer, as_json)

        take_options(run, function, _SHARED)
        app.command(name, help=inspect.getdoc(function))(run)
        return run

    return register
