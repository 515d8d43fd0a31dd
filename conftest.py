"""How the properties of all tests are looked at, and that each test closes what it opens."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import engine

# Hypothesis gives each example 200 ms, and a second to make some: too little on a busy machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
# A failing property of a node takes seconds an example: it has to report within a minute, not within five.
engine.MAX_SHRINKING_SECONDS = 20


def pytest_collection_finish() -> None:
    """Take what was imported out of later collections: a collection then takes 2 ms instead of 80."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None]:
    """Fail the test that left a socket, a file or a coroutine behind, when all its fixtures are gone.

    Such an object warns when it is collected. Without this, the garbage collector finds it during a later
    test, which then fails for it.

    What outlives a test is taken out of later collections until its file ends. Otherwise each collection
    looks at all that earlier files left in caches: 100 ms for each of 5,000 tests.
    """
    yield
    if nextitem is None or nextitem.path != item.path:
        gc.unfreeze()
    left = warnings_of_a_collection()
    gc.freeze()
    if left:
        pytest.fail(f"{item.nodeid} left behind:\n" + "\n".join(left), pytrace=False)


def warnings_of_a_collection() -> list[str]:
    """What garbage says as it is collected; warnings are errors here, so each is an unraisable one."""
    said: list[str] = []
    previous = sys.unraisablehook

    def note(unraisable: sys.UnraisableHookArgs) -> None:
        said.append(f"{unraisable.exc_value!r} from {unraisable.object!r}")

    sys.unraisablehook = note
    try:
        gc.collect()
    finally:
        sys.unraisablehook = previous
    return said
