"""Each bound that docs/threat-model.md promises is a setting, and each metric exists."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from homewire.metrics import COUNTERS, GAUGES, LABELLED
from homewire.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "threat-model.md"
SETTINGS = {field.name for field in dataclasses.fields(Settings)}
METRICS = {*GAUGES, *COUNTERS, *LABELLED}


def rows() -> dict[str, tuple[set[str], set[str]]]:
    """The settings and the metrics of each shared resource."""
    table = PAGE.read_text().partition("## Shared resources")[2].partition("\n## ")[0]
    lines = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")][2:]
    named = {cells[0].strip(): (_names(cells[1]), _names(cells[3])) for cells in lines}
    assert len(named) > 15
    return named


def _names(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


def test_each_shared_resource_has_a_bound_that_is_a_setting_and_a_metric() -> None:
    for resource, (settings, metrics) in rows().items():
        assert settings, resource
        assert metrics, resource
        assert settings <= SETTINGS, resource
        assert metrics <= METRICS, resource


def test_each_actor_s_limit_that_is_named_is_a_setting() -> None:
    text = PAGE.read_text()
    actors = text.partition("## Who acts")[2].partition("\n## ")[0]
    assert _names(actors) <= SETTINGS
