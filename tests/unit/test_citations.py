"""Citations of the specifications resolve: docs/api/specifications.md has each section that is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUMMARIES = "docs/api/specifications.md"
DOCUMENT = re.compile(r"\bspecs?(?:ifications?)? (00\d)")
SECTION = re.compile(r"\b(spec 00\d|data models),? (?:\*([^*\n]+)\*|([A-Z][\w.\- /{}]*[\w}])\")")
"""A section is named as `spec 001, *Users*` in a text, as "spec 001, Create User" in an operation's row."""


def texts() -> Iterator[tuple[str, str]]:
    """Path and text of everything that may cite a specification."""
    for pattern in (
        "python/**/*.py",
        "rust/*/src/**/*.rs",
        "tests/**/*.py",
        "docs/**/*.md",
        "bench/*.py",
        "*.md",
    ):
        for each in ROOT.glob(pattern):
            if each != Path(__file__) and "node_modules" not in each.parts:
                yield str(each.relative_to(ROOT)), each.read_text()


def summaries() -> dict[str, str]:
    """The text of each summary, in lower case, by the heading's words."""
    parts = re.split(r"^## (.+)\n", (ROOT / SUMMARIES).read_text(), flags=re.MULTILINE)
    return {heading.lower(): text.lower() for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def missing(text: str, known: dict[str, str]) -> list[str]:
    """What `text` cites and no summary has."""
    documents = [f"spec {number}" for number in DOCUMENT.findall(text) if f"spec {number}" not in known]
    sections = [(document, first or second) for document, first, second in SECTION.findall(text)]
    return documents + [", ".join(each) for each in sections if each[1].lower() not in known[each[0]]]


def test_cited_documents_and_sections_are_summarised() -> None:
    known, cited = summaries(), dict(texts())
    assert len([path for path, text in cited.items() if SECTION.search(text)]) > 20
    assert {path: missing(text, known) for path, text in cited.items() if missing(text, known)} == {}


def test_no_file_points_out_of_the_repository() -> None:
    assert [path for path, text in texts() if "../shared" in text] == []
