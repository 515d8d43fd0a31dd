"""Links, paths and names in the documents lead to something that exists."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from pathlib import Path

import pytest

from homewire.metrics import COUNTERS, GAUGES, LABELLED
from homewire.settings import ENVIRONMENT_PREFIX, Settings

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "bench/README.md")
PAGES = sorted([*(ROOT / name for name in TOP), *(ROOT / "docs").rglob("*.md")])
SETTINGS = {field.name for field in dataclasses.fields(Settings)}
METRICS = {*GAUGES, *(f"{name}_total" for name in (*COUNTERS, *LABELLED))}
NO_SETTINGS = {"KEY", "KEY_FILE", "URL", "SEED", "SERVICE_HOST", "TEST_CLUSTER"}
"""What commands, examples, tests and Kubernetes put into the environment beside the settings."""
ROOTS = ("python", "rust", "tests", "docs", "bench", ".ci")
"""Directories whose names make a path of the repository out of what stands in backticks."""

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
PATH = re.compile(rf"(?:{'|'.join(map(re.escape, ROOTS))})/[\w./*-]+")
MODULE = re.compile(r"[a-z_]+(?:/[a-z_]+)+\.(?:py|lua)")
"""A module as it is named in short: below `python/homewire`."""

RETIRED = re.compile(
    r"\b(?:hear|hears|heard|hearers?|deaf|condemned|doomed|laggards?|couriers?|whoever|dialects?|outrun"
    r"|kept commands?|nobody else|somebody else)\b",
    re.IGNORECASE,
)
"""Words of the glossary's column "not" that mean nothing else in a document."""
NAME = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)+|(?:[A-Z][a-z]+){2,}|[A-Z]+(?:_[A-Z]+)+")
"""What is the name of something in the code, and not a word: snake_case, CamelCase, UPPER_CASE."""
SOURCES = ("python", "rust", "bench", "tests/parts", "tests/service", "tests/unit")
NOT_OURS = {"CLOCK_MONOTONIC", "SCM_RIGHTS", "test_revoked_key_closes_sockets_on_all_nodes"}

ELSEWHERE = {"close-codes.md", "control-records.md", "errors.md", "metrics.md", "settings.md", "glossary.md"}
"""Pages whose texts are made from the code, and the one that lists these words."""


def of_pages(pages: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


every_page = of_pages(PAGES)
written_page = of_pages([page for page in PAGES if page.name not in ELSEWHERE])


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def fragments(page: Path) -> set[str]:
    """The anchors that GitHub gives to the page's headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(page: Path) -> list[str]:
    """Targets of the page's links, without those to other sites."""
    targets: list[str] = LINK.findall(CODE.sub("", prose(page)))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def broken(page: Path, target: str) -> bool:
    path, _, fragment = target.partition("#")
    to = (page.parent / path).resolve() if path else page
    return not to.exists() or (bool(fragment) and fragment not in fragments(to))


@every_page
def test_relative_links_and_their_fragments_resolve(page: Path) -> None:
    assert [target for target in links(page) if broken(page, target)] == []


@every_page
def test_paths_in_backticks_exist(page: Path) -> None:
    named = [text for text in CODE.findall(prose(page)) if PATH.fullmatch(text)]
    assert [path for path in named if not any(ROOT.glob(path.rstrip("/")))] == []


@every_page
def test_modules_in_backticks_exist(page: Path) -> None:
    named = [
        text for text in CODE.findall(prose(page)) if MODULE.fullmatch(text) and not PATH.fullmatch(text)
    ]
    assert [path for path in named if not (ROOT / "python" / "homewire" / path).exists()] == []


@functools.cache
def words_of_the_code() -> set[str]:
    """Every word of the sources, and what is made from them: names of variables and of metrics."""
    sources = [each for top in SOURCES for each in (ROOT / top).rglob("*.*")]
    found = {"maxmemory", *NOT_OURS}
    for source in sources:
        if source.suffix in {".py", ".pyi", ".rs", ".lua"} and source != Path(__file__):
            found.update(re.findall(r"\w+", source.read_text()))
    found.update(ENVIRONMENT_PREFIX + name.upper() + end for name in SETTINGS for end in ("", "_FILE"))
    found.update({*METRICS, *COUNTERS, *LABELLED}, (f"homewire_{name}" for name in METRICS))
    return found


@written_page
def test_names_of_the_code_in_backticks_exist(page: Path) -> None:
    parts = [part for text in CODE.findall(prose(page)) for part in re.split(r"[.(]", text)]
    names = {part for part in parts if NAME.fullmatch(part)}
    assert names - words_of_the_code() == set()


@written_page
def test_documents_use_the_words_of_the_glossary(page: Path) -> None:
    assert RETIRED.findall(CODE.sub("", prose(page))) == []


def test_architecture_is_short_and_leads_to_every_design_page() -> None:
    page = ROOT / "ARCHITECTURE.md"
    assert len(page.read_bytes()) <= 10 * 1024
    designs = {str(each.relative_to(ROOT)) for each in (ROOT / "docs" / "design").glob("*.md")}
    assert designs <= set(links(page))


def test_list_of_decisions_is_complete() -> None:
    page = ROOT / "docs" / "decisions" / "README.md"
    assert {each.name for each in page.parent.glob("[0-9]*.md")} == set(links(page))


def test_bounds_of_queues_are_settings() -> None:
    page = ROOT / "docs" / "design" / "overload.md"
    table = page.read_text().partition("## Every queue has a bound")[2].partition("\n## ")[0]
    bounds = [line.split("|")[2] for line in table.splitlines() if line.startswith("|")][2:]
    assert len(bounds) > 30
    # What another Redis calls it stands there, too.
    assert {name for cell in bounds for name in CODE.findall(cell)} - SETTINGS == {"maxmemory"}


@every_page
def test_settings_and_metrics_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    variables = set(re.findall(r"\bHOMEWIRE_([A-Z][A-Z0-9_]*[A-Z0-9])\b", text)) - NO_SETTINGS
    unknown = {name for name in variables if name.lower().removesuffix("_file") not in SETTINGS}
    metrics = set(re.findall(r"\bhomewire_(\w+)\b", text)) - {"session"}
    assert (unknown, {name for name in metrics if name not in METRICS}) == (set(), set())
