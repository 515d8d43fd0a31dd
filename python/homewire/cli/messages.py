"""`messages`: e-mails and SMS that no sender took. `audit`: commands that changed something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from homewire.cli.audit import RECORDS, read_records
from homewire.cli.output import Answer
from homewire.cli.scope import Scope, command
from homewire.timestamps import timestamp

if TYPE_CHECKING:
    from homewire.messages.queue import KeptLetter
    from homewire.projects.models import Project


def register(app: typer.Typer) -> None:
    """Add the command to the command tree."""
    command(app, "messages")(messages)
    command(app, "audit")(audit)


async def messages(
    scope: Scope,
    project: Annotated[
        int | None, typer.Option("--project", help="Only those of this project.", show_default=False)
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Only those to this address or number.", show_default=False)
    ] = None,
    dead: Annotated[
        bool, typer.Option("--dead", help="Instead, those that could not be sent, and why; without secrets.")
    ] = False,
) -> Answer:
    """Show the e-mails and SMS that were kept because nothing is set that could send them, newest last.

    They contain codes and tokens. The last 1,000 are kept, for a day.
    """
    from homewire.messages.queue import dead_letters, kept_letters
    from homewire.sealing import Sealer

    find = dead_letters if dead else kept_letters
    kept = await find(scope.redis, Sealer.of(scope.settings))
    shown = [
        each
        for each in kept
        if project in (None, each.letter.message.project_id) and to in (None, each.letter.message.to)
    ]
    projects = {
        number: await scope.store.projects.get(number)
        for number in {each.letter.message.project_id for each in shown}
    }
    return [_shown(each, projects[each.letter.message.project_id]) for each in shown]


async def audit(
    scope: Scope,
    limit: Annotated[int, typer.Option(min=1, max=RECORDS, help="How many of the latest.")] = 100,
) -> Answer:
    """List the commands that changed something or were refused, the newest last: who, where, on which ids.

    About the last 10,000 are kept.
    """
    return await read_records(scope.redis, limit)


def _shown(kept: KeptLetter, project: Project | None) -> dict[str, Any]:
    from homewire.messages.message import link

    message = kept.letter.message
    line: dict[str, Any] = {
        "createdAt": timestamp(kept.since_ms),
        "project": message.project_id,
        "to": message.to,
        "kind": message.kind.value,
    }
    if kept.problem:
        return line | {"problem": kept.problem}
    url = link(message, project, kept.letter.base_url) if project is not None else None
    more = {"code": message.code, "token": message.token, "url": url, "homeName": message.home_name}
    return line | {name: value for name, value in more.items() if value}
