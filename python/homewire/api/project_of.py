"""Which project a request is for that names none: of the host it came to, or the only one.

The session APIs of other makers (spec 002, 003, 004) know no projects.
"""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web

from homewire.api.context import Api
from homewire.errors import InvalidInput
from homewire.hosts import projects_by_host, without_port
from homewire.model import Project

AMBIGUOUS: Final = "AMBIGUOUS_PROJECT"
UNKNOWN: Final = "UNKNOWN_PROJECT"


async def project_of(api: Api, request: web.Request) -> Project:
    """The project of the request's Host in the setting `project_hosts`, else `default_project`, else the
    only one that there is.

    Raises InvalidInput: AMBIGUOUS_PROJECT if nothing decides, UNKNOWN_PROJECT if what decides names a
    project that does not exist or is disabled.
    """
    project_id = _of_host(api, request.headers.get(hdrs.HOST, "")) or api.settings.default_project
    if project_id is None:
        project_id = await api.store.projects.only()
        if project_id is None:
            raise InvalidInput(
                "Host",
                "does not tell the project: that needs the setting project_hosts or default_project",
                reason=AMBIGUOUS,
            )
    project = await api.store.projects.get(project_id)
    if project is None or project.disabled:
        raise InvalidInput("Host", "stands for a project that does not exist", reason=UNKNOWN)
    return project


def _of_host(api: Api, host: str) -> int | None:
    """What the table says of the host with its port, else without."""
    named = host.strip().lower()
    table = projects_by_host(api.settings.project_hosts)
    return table.get(named) or table.get(without_port(named))
