"""The Autobahn cases, run by kosoku against an echo on the core.

"Non-strict" counts as a failure, so 6.4.* proves that invalid UTF-8 is refused with the very byte
that makes it so. 12 and 13 need compression, which is to come.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest
from echo_server import echo_server
from kosoku import FailureError, run_fuzzingclient
from kosoku._kosoku import CaseResult

STRICT = {"OK"}
ECHO_LOSES_THE_RACE = {"OK", "NON-STRICT"}
"""A good message and a violation in one segment. RFC 6455 section 7.1.7 has us fail the connection at
once, and the suite accepts that; it would rather see the echo first, but ours is made in Python."""
NO_RIGHT_ANSWER = {"OK", "INFORMATIONAL"}

EXCEPTIONS = dict.fromkeys(
    ("3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"), ECHO_LOSES_THE_RACE
) | dict.fromkeys(
    # Whether an echo comes before the close; close codes that the RFC says nothing about.
    ("7.1.6", "7.13.1", "7.13.2"),
    NO_RIGHT_ANSWER,
)
"""Cases that may end otherwise than OK, and how."""

KOSOKU_WAITS_MS = 1_000
"""For an answer, and it can't be told to wait longer: a machine may stand still for that long."""


async def run(*cases: str) -> list[CaseResult]:
    """Runs these cases one after the other; those that kosoku's clock ended once more, alone."""
    async with echo_server() as url:
        results = await ask(url, cases)
        late = [case.case_id for case in results if problem(case) and case.duration >= KOSOKU_WAITS_MS]
        again = {case.case_id: case for case in await ask(url, late)} if late else {}
    return [again.get(case.case_id, case) for case in results]


async def ask(url: str, cases: Sequence[str]) -> list[CaseResult]:
    try:
        return await run_fuzzingclient(url, cases)
    except FailureError as failure:
        return failure.results


def problem(case: CaseResult) -> str | None:
    """A line about a case that did not end as it has to."""
    verdicts = (case.behavior.value, case.behavior_close.value)
    if EXCEPTIONS.get(case.case_id, STRICT).issuperset(verdicts):
        return None
    return f"{case.case_id} {verdicts}: {case.result} {case.result_close}"


def problems(results: Iterable[CaseResult]) -> list[str]:
    return [line for case in results if (line := problem(case)) is not None]


async def test_framing_fragments_utf8_and_closing() -> None:
    """Groups 1 to 7 and 10: 247 cases."""
    results = await run("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
    assert problems(results) == []
    groups = itertools.groupby(case.case_id.split(".")[0] for case in results)
    assert {group: len(list(cases)) for group, cases in groups} == {
        "1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "10": 1,
    }  # fmt: skip


@pytest.mark.slow
async def test_large_and_many_messages() -> None:
    """Group 9: messages of up to 16 MiB, in pieces of any size."""
    results = await run("9.*")
    assert problems(results) == []
    assert len(results) == 54
