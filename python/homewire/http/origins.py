"""Which page a browser's request comes from: this service's own, or that of somebody else."""

from __future__ import annotations

from collections.abc import Container

from aiohttp import hdrs, web

from homewire.errors import PermissionDenied
from homewire.hosts import origin_of
from homewire.http.clients import by_https


def refuse_cross_site(request: web.Request, allowed: Container[str] = ()) -> None:
    """Raise PermissionDenied for a request from a page of another origin, unless that is one of `allowed`.

    A browser says whose page it is in Origin, or else in Referer. Who says nothing is no browser, or
    acts for nobody's page.
    """
    headers = request.headers
    named = headers.get(hdrs.ORIGIN)
    origin = origin_of(headers.get(hdrs.REFERER, "") if named is None else named)
    if named is None and hdrs.REFERER not in headers:
        return
    if origin is not None and (origin in allowed or _is_own(request, origin)):
        return
    raise PermissionDenied(
        "CROSS_SITE", problem="a page of another origin acts with this session's cookie; send the key instead"
    )


def _is_own(request: web.Request, origin: str) -> bool:
    scheme = origin.partition(":")[0]
    # Before a balancer that ends TLS there is https where there is http here; never the other way round.
    if scheme == "http" and by_https(request):
        return False
    return origin == origin_of(f"{scheme}://{request.headers.get(hdrs.HOST, '')}")
