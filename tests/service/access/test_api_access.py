"""Every operation, caller, account system and access control, on a running node.

The table is in `access_rows.py`, those who call in `access_project.py`. A new operation without a row
fails here, and so does a status that no test reaches and nothing excuses.
"""

from __future__ import annotations

import aiohttp
import pytest

from kit.access_project import CALLERS, AccessProject, world_of
from kit.access_reached import ELSEWHERE, ERROR, IMPOSSIBLE
from kit.access_rows import ENDPOINT, ROWS, Row
from kit.node import NodeProcess
from kit.openapi import ENDPOINTS, Endpoint
from kit.tenant import ACCESS_CONTROLS, ACCOUNT_SYSTEMS


def test_every_operation_has_a_row() -> None:
    assert {row.operation for row in ROWS} == ENDPOINT.keys()


def test_every_status_of_every_operation_is_reached() -> None:
    reached = {(row.operation, status) for row in ROWS for status in row.expected().values()}
    promised = {
        (endpoint.name, status)
        for endpoint in ENDPOINTS
        for status in {endpoint.success, *endpoint.errors} - {500, 503}
    }
    assert reached <= promised, "a row expects what the document does not have"
    excused = ELSEWHERE.keys() | IMPOSSIBLE.keys()
    assert promised - reached == excused, "not reached, or excused in vain"


# Two thousand requests, some of which hash a password: 15 s, and a minute on a machine that is loaded.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("access_control", ACCESS_CONTROLS)
@pytest.mark.parametrize("accounts", ACCOUNT_SYSTEMS)
async def test_each_caller_gets_status_of_access_table(
    node: NodeProcess, accounts: str, access_control: str
) -> None:
    async with world_of(node, accounts, access_control) as subject:
        wrong = [
            f"{row.operation} by {caller} ({CALLERS[caller]}) on {row.path}: {problem}"
            for row in ROWS
            if row.applies(subject)
            for caller, expected in row.expected().items()
            if (problem := await problem_of(subject, row, caller, expected)) is not None
        ]
    assert not wrong, "\n" + "\n".join(wrong)


async def problem_of(subject: AccessProject, row: Row, caller: str, expected: int) -> str | None:
    """What is wrong with the answer that the caller gets; None: nothing."""
    ask = await row.ask(subject, caller)
    endpoint = ask.endpoint
    async with ask.sent(subject.tenant.http) as answer:
        if answer.status == endpoint.success == 101:
            answer.close()
            return None if expected == 101 else "101"
        content = await answer.text()
        if answer.status != expected:
            return f"{answer.status} instead of {expected}: {content}"
        return problem_of_body(endpoint, answer, content)


def problem_of_body(endpoint: Endpoint, answer: aiohttp.ClientResponse, content: str) -> str | None:
    """What is wrong with the shape of an answer."""
    if answer.status == endpoint.success and endpoint.answer is None:
        return f"a body: {content}" if content else None
    if answer.content_type != "application/json":
        return answer.content_type
    if answer.status == endpoint.success or ERROR[endpoint.shape].match(content):
        return None
    return f"no error as clients know it: {content}"
