"""The page of the metrics is their tables."""

from __future__ import annotations

from pathlib import Path

from homewire.metrics import COUNTERS, GAUGES, markdown

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_page_is_current() -> None:
    assert PAGE.read_text() == markdown(), "run `make docs`"


def test_no_figure_is_of_both_kinds() -> None:
    assert not GAUGES.keys() & COUNTERS.keys()
