"""Health checks and metrics: what balancers ask at the port, and what operators ask at the admin port.

At the port there is a status and no more: what keeps a node from serving, and all of the metrics, would tell
strangers about its insides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from homewire.errors import Unavailable

Problem = Callable[[], str | None]
"""What keeps this node from serving, None if nothing does."""


def public_routes(problem: Problem) -> list[web.RouteDef]:
    """What to mount at the URL root of the port."""
    return [web.get("/healthz", healthz), web.get("/readyz", partial(readyz, problem))]


def admin_routes(problem: Problem, metrics: CollectorRegistry) -> list[web.RouteDef]:
    """What to mount at the URL root of the admin port."""
    return [
        web.get("/healthz", healthz),
        web.get("/readyz", partial(explained_readyz, problem)),
        web.get("/metrics", partial(expose, metrics)),
    ]


async def healthz(_request: web.Request) -> web.Response:
    """200 while the event loop turns."""
    return web.json_response({"status": "ok"})


async def readyz(problem: Problem, _request: web.Request) -> web.Response:
    """200 when events can be taken and are delivered. Raises Unavailable otherwise."""
    if problem() is not None:
        raise Unavailable
    return web.json_response({"status": "ready"})


async def explained_readyz(problem: Problem, _request: web.Request) -> web.Response:
    """The same; Unavailable says why."""
    reason = problem()
    if reason is not None:
        raise Unavailable(problem=reason)
    return web.json_response({"status": "ready"})


async def expose(metrics: CollectorRegistry, _request: web.Request) -> web.Response:
    """Prometheus' text format."""
    return web.Response(body=generate_latest(metrics), headers={"Content-Type": CONTENT_TYPE_LATEST})
