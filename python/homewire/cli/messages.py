"""`messages` shows stored e-mails and SMS, `audit` the commands that changed something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from homewire.cli.audit import RECORDS, read_records
from homewire.cli.output import Answer
from homewire.cli.scope import Scope, command
from homewire.timestamps import timestamp

if TYPE_CHECKING:
    from homewire.messages.queue import StoredMessage
    from homewire.projects.models import Project


def register(app: typer.Typer) -> None:
    """Add the commands to the command tree."""
    command(app, "messages")(messages)
    command(app, "audit")(audit)


async def messages(
    scope: Scope,
    project: Annotated[
        int | None, typer.Option("--project", help="Only messages of this project.", show_default=False)
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Only messages to this address or number.", show_default=False)
    ] = None,
    dead: Annotated[
        bool, typer.Option("--dead", help="Show dead letters and their problem instead, without secrets.")
    ] = False,
) -> Answer:
    """Show the e-mails and SMS that were stored because no sender is configured, newest last.

    They contain codes and tokens. The last 1,000 are stored, for a day.
    """
    from homewire.messages.queue import dead_letters, stored_messages
    from homewire.sealing import Sealer

    find = dead_letters if dead else stored_messages
    stored = await find(scope.redis, Sealer.of(scope.settings))
    selected = [
        each
        for each in stored
        if project in (None, each.queued.message.project_id) and to in (None, each.queued.message.to)
    ]
    projects = {
        number: await scope.store.projects.get(number)
        for number in {each.queued.message.project_id for each in selected}
    }
    return [_to_json(each, projects[each.queued.message.project_id]) for each in selected]


async def audit(
    scope: Scope,
    limit: Annotated[int, typer.Option(min=1, max=RECORDS, help="Number of entries.")] = 100,
) -> Answer:
    """List the commands that changed something or were refused, newest last, with user, host and ids.

    About the last 10,000 are stored.
    """
    return await read_records(scope.redis, limit)


def _to_json(stored: StoredMessage, project: Project | None) -> dict[str, Any]:
    from homewire.messages.texts import link

    message = stored.queued.message
    line: dict[str, Any] = {
        "createdAt": timestamp(stored.since_ms),
        "project": message.project_id,
        "to": message.to,
        "kind": message.kind.value,
    }
    if stored.problem:
        return line | {"problem": stored.problem}
    url = link(message, project, stored.queued.base_url) if project is not None else None
    more = {"code": message.code, "token": message.token, "url": url, "homeName": message.home_name}
    return line | {name: value for name, value in more.items() if value}
