"""Handlers around handlers, without a middleware that every other request would pay for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def wrapped(routes: Sequence[web.RouteDef], wrap: Callable[[Handler], Handler]) -> list[web.RouteDef]:
    """The same routes, with what `wrap` makes of their handlers."""
    return [web.RouteDef(route.method, route.path, wrap(route.handler), route.kwargs) for route in routes]
