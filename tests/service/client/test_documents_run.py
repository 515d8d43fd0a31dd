"""Every shell block of README.md and docs/ works, in its order, and prints what the document shows.

A block in ```sh is run. A block that a test cannot run is ```console, and stands in NOT_RUN with the reason.
Shown output is compared in shape: "```json output" is what the block before it prints, "```json received" the
event or command that the newest listener prints, "```text output" has the first word of each line.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from kit.page_shell import ROOT, Block, PageShell, blocks_of

pytestmark = pytest.mark.timeout(300)
"""Some forty programs are started one after the other."""

QUICKSTART = "docs/quickstart.md"
"""The other pages' blocks run behind this page's, on its node and with what it exports."""

NOT_RUN = {
    ("README.md", "make run"): "builds homewire and runs all tests; tests/unit/test_demo.py has the demo",
    ("README.md", ".venv/bin/homewire listen"): "listens to that demo",
    ("docs/operations/redis.md", "homewire adopt-redis --data-dir /var/lib/homewire"): (
        "needs an emptied Redis; tests/service/redis/test_deployment.py has one"
    ),
}
"""Each block that is shown and not run, by page and first command, with the reason."""

PAGES = ["README.md", *sorted(str(each.relative_to(ROOT)) for each in (ROOT / "docs").rglob("*.md"))]
RUN = [page for page in PAGES if any(each.language == "sh" for each in blocks_of(page))]
WITH_A_NODE = [
    page
    for page in RUN
    if any("homewire run" in each.text for each in blocks_of(page) if each.language == "sh")
]
"""The pages that start a node of their own."""


@dataclass(frozen=True)
class Quickstart:
    """What the quickstart leaves: its directory, what it exported, its node."""

    directory: Path
    environment: dict[str, str]
    node: tuple[str, str] | None


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    directory = tmp_path_factory.mktemp("quickstart")
    with PageShell(directory, outside()) as shell:
        follow(shell, blocks_of(QUICKSTART))
        yield Quickstart(directory, shell.environment(), shell.node)


def outside() -> dict[str, str]:
    """The environment of a reader's shell, whose node takes free ports."""
    if shutil.which("curl") is None:
        pytest.skip("the examples of the documents need curl")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOMEWIRE_")}
    return {**kept, "HOMEWIRE_PORT": "0", "HOMEWIRE_DURABILITY": "everysec"}


def follow(shell: PageShell, blocks: list[Block]) -> None:
    """Run the blocks, and compare what they print with what is shown."""
    printed = ""
    for block in blocks:
        match block.language, block.role:
            case "sh", "":
                printed = shell.run(block)
            case "json", "output":
                same_shape(orjson.loads(block.text), orjson.loads(printed), block.text)
            case "json", "received":
                shown = orjson.loads(block.text)
                kind = shown.get("eventType") or shown["action"]
                same_shape(shown, orjson.loads(shell.received(kind)), block.text)
            case "text", "output":
                assert first_words(printed) == first_words(block.text)
            case _, role:
                assert not role, f"{role} is no role of a block"


def same_shape(shown: Any, printed: Any, where: str) -> None:
    """The same members in the same order, and of each the same type."""
    assert type(shown) is type(printed), f"{where}\nprinted {printed!r}"
    if isinstance(shown, dict):
        assert list(shown) == list(printed), f"{where}\nprinted {printed!r}"
        for name, value in shown.items():
            same_shape(value, printed[name], where)
    if isinstance(shown, list):
        assert len(shown) == len(printed), f"{where}\nprinted {printed!r}"
        for one, other in zip(shown, printed, strict=True):
            same_shape(one, other, where)


def first_words(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("page", [page for page in RUN if page not in WITH_A_NODE])
def test_page_runs_behind_the_quickstart(page: str, quickstart: Quickstart) -> None:
    with PageShell(quickstart.directory, quickstart.environment, quickstart.node) as shell:
        follow(shell, blocks_of(page))


@pytest.mark.parametrize("page", [page for page in WITH_A_NODE if page != QUICKSTART])
def test_page_runs_in_an_empty_directory(page: str, tmp_path: Path) -> None:
    with PageShell(tmp_path, outside()) as shell:
        follow(shell, blocks_of(page))


def test_quickstart_runs(quickstart: Quickstart) -> None:
    assert quickstart.node is not None


def test_blocks_that_do_not_run_are_those_of_the_table() -> None:
    shown = {
        (page, re.split(r"\s{2,}|\n", each.text)[0])
        for page in PAGES
        for each in blocks_of(page)
        if each.language == "console"
    }
    assert shown == set(NOT_RUN)


def test_every_block_names_its_language() -> None:
    unnamed = [page for page in PAGES if any(not each.language for each in blocks_of(page))]
    indented = [page for page in PAGES if re.search(r"\n\n    \S", (ROOT / page).read_text())]
    assert (unnamed, indented) == ([], [])
