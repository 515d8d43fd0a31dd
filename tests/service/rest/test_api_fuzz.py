"""schemathesis over the whole document: requests as it has them, and hostile ones, against a running node.

No 500, no status, body or header that the document does not have. The short form is the same in each
run; `make fuzz-api` takes new requests, and many more (HOMEWIRE_EXAMPLES, for each operation).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from kit.access_project import world_of
from kit.access_rows import ENDPOINT
from kit.node import NodeProcess, private_node
from kit.openapi import document

LONG: Final = os.environ.get("HOMEWIRE_EXAMPLES")
EXAMPLES: Final = int(LONG or 12)
CHECKS: Final = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SCHEMA: Final = schemathesis.openapi.from_dict(document())
WORLDS: Final = {
    "email": ("email", "membership"),
    "phone": ("phone", "permission"),
    "byou": ("byou", "membership"),
}
CALLERS: Final = ("owner", "member", "own", "admin", "none", "garbage")
KNOWN: Final = {
    "homeId": "home",
    "deviceId": "own",
    "userId": "owner",
    "projectId": "project",
    "appId": "app",
}
"""What fields and parameters of these names are given, where the request is to get further than to an id."""

Snapshot = tuple[dict[str, Any], dict[str, str | None]]
"""What there is to ask about in a project, and the keys in it."""


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[NodeProcess]:
    """A node of its own: who sends so much reaches every limit."""
    with private_node() as node:
        yield node
        assert "Traceback" not in node.logged()


@pytest.fixture(scope="module")
def lasting(fuzzed: NodeProcess) -> dict[str, Snapshot]:
    """Worlds for all operations but those that delete."""
    return asyncio.run(snapshots(fuzzed))


@pytest.mark.timeout(3600 if LONG else 120)
@pytest.mark.parametrize("name", ENDPOINT)
def test_operation_answers_as_documented(
    fuzzed: NodeProcess, lasting: dict[str, Snapshot], name: str
) -> None:
    operation = SCHEMA[ENDPOINT[name].path][ENDPOINT[name].method]
    worlds = asyncio.run(snapshots(fuzzed)) if ENDPOINT[name].method == "DELETE" else lasting
    modes = [GenerationMode.POSITIVE]
    if operation.body or operation.query or operation.headers or operation.path_parameters:
        modes.append(GenerationMode.NEGATIVE)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=LONG is None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes)),
        subject=st.sampled_from(list(worlds)),
        caller=st.sampled_from(CALLERS),
        knows=st.integers(0, 3).map(bool),
    )
    def answers(case: schemathesis.Case[Any], subject: str, caller: str, knows: bool) -> None:
        known, keys = worlds[subject]
        if knows:
            case.path_parameters = named(case.path_parameters, known)
            case.query = named(case.query, known)
            case.body = named(case.body, known)
        case.cookies.clear()
        for name in ("Authorization", "X-Auth-Token", "X-User-Id"):
            case.headers.pop(name, None)
        if keys[caller] is not None:
            case.headers["Authorization"] = keys[caller]
        response = case.call(base_url=fuzzed.url, session=session, timeout=10)
        case.validate_response(response, checks=CHECKS)

    with requests.Session() as session:
        # No caller gets the cookie of another.
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        answers()


async def snapshots(node: NodeProcess) -> dict[str, Snapshot]:
    """New worlds of each kind."""
    return {name: await snapshot(node, *kinds) for name, kinds in WORLDS.items()}


async def snapshot(node: NodeProcess, accounts: str, access_control: str) -> Snapshot:
    async with world_of(node, accounts, access_control) as subject:
        return {name: await subject.value(place) for name, place in KNOWN.items()}, subject.keys


def named(values: Any, known: dict[str, Any]) -> Any:
    """The same with what is known by its name."""
    if not isinstance(values, dict):
        return values
    return {name: known.get(name, value) for name, value in values.items()}
