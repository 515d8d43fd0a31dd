"""Smart modules of a home (spec 001, *Get Smart Modules*), without the secrets URL and key."""

from __future__ import annotations

from typing import Final

from homewire.auth.actions import Action
from homewire.errors import NotFound
from homewire.projects.models import KeyScope
from homewire.rest import models
from homewire.rest.context import RestContext
from homewire.rest.operation import Access, Call, NoQuery, Operation, Paging
from homewire.store.parts import Part
from homewire.timestamps import timestamp
from homewire.webhooks.models import SmartModule as SmartModuleRecord


def to_response(module: SmartModuleRecord) -> models.SmartModule:
    """A module in a response. `suspended` is the choice of an operator, not the state of the breaker."""
    return models.SmartModule(
        id=module.id,
        project_id=module.project_id,
        module_type=module.module_type.value,
        creation_time=timestamp(module.created_ms),
        description=module.description,
        suspended=module.suspended,
        subscribed_events=sorted(module.events),
    )


async def get_smart_modules(context: RestContext, call: Call[Paging, None]) -> Part[models.SmartModule]:
    """The modules of the whole project and of this home, by id."""
    found = await context.store.smart_modules.of_home(call.project_id, call.ids["homeId"])
    return Part.within(found, call.query.skip, call.query.limit).map(to_response)


async def get_smart_module(context: RestContext, call: Call[NoQuery, None]) -> models.SmartModule:
    """One module of a home."""
    module = await context.store.smart_modules.get(call.project_id, call.text("moduleId"))
    if module is None or not module.concerns(call.ids["homeId"]):
        raise NotFound
    return to_response(module)


OPERATIONS: Final = (
    Operation(
        name="getSmartModules",
        method="GET",
        path="/homes/{homeId}/smartModules",
        tag="Smart Modules",
        summary="List the smart modules available for a home",
        source="spec 001, Get Smart Modules",
        access=Access(user=True, scope=KeyScope.READ),
        action=Action.SEE_HOME,
        handler=get_smart_modules,
        query=Paging,
        answer=list[models.SmartModule],
        errors=frozenset({401, 403}),
    ),
    Operation(
        name="getSmartModule",
        method="GET",
        path="/homes/{homeId}/smartModules/{moduleId}",
        tag="Smart Modules",
        summary="Get a smart module of a home",
        source="spec 001, Get Smart Module",
        access=Access(user=True, scope=KeyScope.READ),
        action=Action.SEE_HOME,
        handler=get_smart_module,
        answer=models.SmartModule,
    ),
)
