"""Medians with their spread, goals, and printing and storing of tables."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.servers import ROOT

RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of several runs, and the least and the greatest of them."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def text(self, digits: int) -> str:
        """``median (least-greatest)`` with so many digits after the point."""
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f}-{self.greatest:,.{digits}f})"

    def count(self) -> str:
        """Large numbers, in thousands."""
        return f"{self.median / 1000:,.0f} k ({self.least / 1000:,.0f}-{self.greatest / 1000:,.0f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The ratio of our value to the peer's, for each pair of runs."""
    return Spread.of([a / b for a, b in zip(ours, theirs, strict=True)])


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal: a bound for our `attribute` by that of `against` (empty: for itself)."""

    text: str
    attribute: str
    against: str = ""
    at_most: float | None = None
    at_least: float | None = None

    def reached(self, value: float) -> bool:
        """Whether the value is within the bound."""
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


@dataclass(slots=True)
class Table:
    """The result of one row: a line per contestant, and whether each goal was reached."""

    name: str
    title: str
    columns: list[str]
    notes: list[str] = field(default_factory=list)
    lines: list[list[str]] = field(default_factory=list)
    verdicts: list[tuple[str, str, bool]] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    small: bool = False

    def add(self, *cells: str) -> None:
        """One line."""
        self.lines.append(list(cells))

    def judge(self, goal: Goal, value: Spread) -> None:
        """Compare a median with a goal."""
        self.verdicts.append((goal.text, value.text(3), goal.reached(value.median)))

    def markdown(self) -> str:
        """The table as Markdown, the goals below it."""
        text = [f"### {self.name}: {self.title}", ""]
        text.append("| " + " | ".join(self.columns) + " |")
        text.append("| " + " | ".join("---" for _ in self.columns) + " |")
        text += ["| " + " | ".join(line) + " |" for line in self.lines]
        text.append("")
        text += [f"- {note}" for note in self.notes]
        if self.small:
            text.append("- a small run: it proves that the harness works, and measures nothing")
        for goal, value, reached in [] if self.small else self.verdicts:
            text.append(f"- {'reached' if reached else 'MISSED'}: {goal}: {value}")
        return "\n".join(text) + "\n"

    def keep(self) -> Path:
        """Write everything to bench/results, which is not committed."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        found = {
            "name": self.name,
            "title": self.title,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
            "columns": self.columns,
            "lines": self.lines,
            "notes": self.notes,
            "verdicts": self.verdicts,
            "raw": self.raw,
        }
        path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        return path


def kept() -> list[Table]:
    """The stored tables of the last runs."""
    tables = []
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        table = Table(found["name"], found["title"], found["columns"], found["notes"], found["lines"])
        table.verdicts = [(goal, value, reached) for goal, value, reached in found["verdicts"]]
        tables.append(table)
    return tables
