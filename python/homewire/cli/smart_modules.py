"""Commands on smart modules, which receive a project's events."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from homewire.cli.options import Project
from homewire.cli.output import Answer
from homewire.cli.scope import Scope, command
from homewire.errors import ClientError, UnknownRecord
from homewire.timestamps import timestamp
from homewire.webhooks.models import DeadLetter, ModuleType, SmartModule

modules = typer.Typer(
    name="smart-module",
    help="Smart modules: webhooks that receive a project's events.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
dead_letters = typer.Typer(
    name="dead-letters",
    help="Deliveries that failed for good.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


ModuleId = Annotated[str, typer.Option("--id", help="Id, unique in the project.")]
DeadLetters = Annotated[
    list[str] | None,
    typer.Option("--letter", help="Id of a dead letter; repeat for more. None: all.", show_default=False),
]


def register(app: typer.Typer) -> None:
    """Add the group to the command tree."""
    modules.add_typer(dead_letters)
    app.add_typer(modules)


@command(modules, "create", changes=True)
async def create_module(
    scope: Scope,
    module_id: ModuleId,
    url: Annotated[str, typer.Option(help="Where events are posted: https (or http) and a public host.")],
    event: Annotated[list[str], typer.Option(help="Event type, exactly; repeat for more; * for all.")],
    type: Annotated[ModuleType, typer.Option(help="Type of the module.")] = ModuleType.WEBHOOK,
    description: Annotated[str, typer.Option(help="Description; every member of a home can read it.")] = "",
    home: Annotated[
        list[int] | None,
        typer.Option(
            help="Home whose events it receives; repeat for more. None: all homes of the project.",
            show_default=False,
        ),
    ] = None,
    project: Project = None,
) -> Answer:
    """Create a webhook. Its key, which verifies signatures, is shown only once."""
    from homewire.sealing import require_secret
    from homewire.webhooks.registration import create_webhook

    require_secret(scope.settings)
    match type:
        case ModuleType.WEBHOOK:
            create = create_webhook
    project_id = await scope.project(project)
    key = await create(
        scope.store, scope.settings, project_id, module_id, url, description, event, home or None
    )
    return {"moduleId": module_id, "key": key}


@command(modules, "list")
async def list_modules(scope: Scope, project: Project = None) -> Answer:
    """List the smart modules, with waiting deliveries and the state of the circuit breaker."""
    project_id = await scope.project(project)
    return [await _to_json(scope, module) for module in await scope.store.smart_modules.list(project_id)]


@command(modules, "show")
async def show_module(scope: Scope, module_id: ModuleId, project: Project = None) -> Answer:
    """Show a smart module, with the last error of its receiver."""
    project_id = await scope.project(project)
    module = await scope.store.smart_modules.get(project_id, module_id)
    if module is None:
        raise UnknownRecord("smart module", module_id)
    return await _to_json(scope, module)


@command(modules, "suspend", changes=True)
async def suspend_module(scope: Scope, module_id: ModuleId, project: Project = None) -> Answer:
    """Stop deliveries until the module is resumed. Events wait, within webhook_waiting_bytes."""
    await scope.store.smart_modules.suspend(await scope.project(project), module_id)
    return {"moduleId": module_id}


@command(modules, "resume", changes=True)
async def resume_module(scope: Scope, module_id: ModuleId, project: Project = None) -> Answer:
    """Resume deliveries, and close an open circuit breaker."""
    await scope.store.smart_modules.resume(await scope.project(project), module_id)
    return {"moduleId": module_id}


@command(modules, "rotate-key", changes=True)
async def rotate_module_key(
    scope: Scope,
    module_id: ModuleId,
    overlap_hours: Annotated[
        float,
        typer.Option(min=0, max=24 * 365, help="Hours in which the old key signs, too. 0: none."),
    ] = 24.0,
    project: Project = None,
) -> Answer:
    """Replace the key that signs deliveries. The new key is shown only once.

    During the overlap X-Homewire-Signature has a v1 of each key. X-Mode-Signature is made with the old key.
    """
    from homewire.sealing import require_secret
    from homewire.webhooks.registration import rotate_key

    require_secret(scope.settings)
    project_id = await scope.project(project)
    key = await rotate_key(scope.store, scope.settings, project_id, module_id, overlap_hours * 3600)
    return {"moduleId": module_id, "key": key}


@command(modules, "test")
async def try_module(scope: Scope, module_id: ModuleId, project: Project = None) -> Answer:
    """Post one test event to a webhook, signed with its key, and show whether the receiver accepted it.

    The event has the type _webhookTest_ and no home. It is sent once from this machine, to this webhook only.
    A suspended module is tested, too.
    """
    from homewire.sealing import Sealer
    from homewire.webhooks.registration import post_test

    project_id = await scope.project(project)
    module = await scope.store.smart_modules.get(project_id, module_id)
    if module is None:
        raise UnknownRecord("smart module", module_id)
    problem = await post_test(scope.settings, Sealer.of(scope.settings), module, scope.store.now_ms())
    if problem is not None:
        raise ClientError(
            f"the receiver of smart module {module_id} did not accept the test event: {problem}"
        )
    return {"moduleId": module_id, "delivered": True}


@command(modules, "delete", changes=True)
async def delete_module(scope: Scope, module_id: ModuleId, project: Project = None) -> Answer:
    """Delete a smart module, its waiting deliveries and its dead letters."""
    await scope.store.smart_modules.delete(await scope.project(project), module_id)
    return {"moduleId": module_id}


@command(dead_letters, "list")
async def list_dead_letters(scope: Scope, module_id: ModuleId, project: Project = None) -> Answer:
    """List the dead letters with their problem, oldest first."""
    import orjson

    from homewire._core import event_json

    project_id = await _existing(scope, module_id, project)
    return [
        {
            "letterId": dead_letter.id,
            "eventId": dead_letter.event_id,
            "reason": dead_letter.reason,
            "tries": dead_letter.tries,
            "event": orjson.loads(event_json(dead_letter.envelope) or b"null"),
        }
        for dead_letter in await scope.store.module_deliveries.dead_letters(project_id, module_id)
    ]


@command(dead_letters, "retry", changes=True)
async def retry_dead_letters(
    scope: Scope, module_id: ModuleId, dead_letter: DeadLetters = None, project: Project = None
) -> Answer:
    """Deliver dead letters again: all, or the named ones."""
    project_id = await _existing(scope, module_id, project)
    chosen = dead_letter or await _all_dead_letters(scope, project_id, module_id)
    return {"retried": await scope.store.module_deliveries.retry(project_id, module_id, chosen)}


@command(dead_letters, "drop", changes=True)
async def drop_dead_letters(
    scope: Scope, module_id: ModuleId, dead_letter: DeadLetters = None, project: Project = None
) -> Answer:
    """Delete dead letters: all, or the named ones."""
    project_id = await _existing(scope, module_id, project)
    chosen = dead_letter or await _all_dead_letters(scope, project_id, module_id)
    return {"dropped": await scope.store.module_deliveries.drop(project_id, module_id, chosen)}


async def _existing(scope: Scope, module_id: str, project: int | None) -> int:
    """The project that has this module."""
    project_id = await scope.project(project)
    if await scope.store.smart_modules.get(project_id, module_id) is None:
        raise UnknownRecord("smart module", module_id)
    return project_id


async def _all_dead_letters(scope: Scope, project_id: int, module_id: str) -> list[str]:
    dead_letters: list[DeadLetter] = await scope.store.module_deliveries.dead_letters(project_id, module_id)
    return [dead_letter.id for dead_letter in dead_letters]


async def _to_json(scope: Scope, module: SmartModule) -> dict[str, Any]:
    waiting, dead = await scope.store.module_deliveries.counts(module.project_id, module.id)
    return {
        "moduleId": module.id,
        "type": module.module_type.value,
        "description": module.description,
        "events": sorted(module.events),
        "homes": None if module.homes is None else sorted(module.homes),
        "suspended": module.suspended,
        "keys": 2 if module.old_key_until_ms > scope.store.now_ms() else 1,
        "breakerOpen": module.broken_until_ms > scope.store.now_ms(),
        "lastError": module.last_error or None,
        "lastErrorAt": timestamp(module.last_error_ms) if module.last_error_ms else None,
        "waiting": waiting,
        "deadLetters": dead,
    }
