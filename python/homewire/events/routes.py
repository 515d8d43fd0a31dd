"""The table of the ingest routes."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from homewire.events.bulk import post_events
from homewire.events.commands import put_device_command
from homewire.events.context import Ingest
from homewire.events.single import put_device_event, put_home_event


def routes(ingest: Ingest) -> list[web.RouteDef]:
    """What to mount at the URL root. Handlers raise `errors.RequestError`; a middleware renders it."""
    return [
        web.put("/devices/{deviceId}/event", partial(put_device_event, ingest)),
        web.put("/homes/{homeId}/event", partial(put_home_event, ingest)),
        web.put("/devices/{deviceId}/command", partial(put_device_command, ingest)),
        web.post("/events", partial(post_events, ingest)),
    ]
