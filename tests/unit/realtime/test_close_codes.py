"""The page of close codes: that it is the core's table."""

from __future__ import annotations

from pathlib import Path

from homewire import _core
from homewire.realtime.close_codes import FIRST_FINAL_CODE, GOING_AWAY, markdown, reason

PAGE = Path(__file__).parents[3] / "docs" / "close-codes.md"


def test_page_is_current() -> None:
    assert PAGE.read_text() == markdown(), "run `make docs`"


def test_every_code_of_the_core_has_its_row() -> None:
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line[2:6].isdigit()]
    codes = [(int(row[0].removeprefix("| ")), row[1], row[3].removesuffix(" |")) for row in rows]
    assert codes == _core.close_codes()


def test_table_has_only_codes_that_a_node_sends() -> None:
    codes = [code for code, _, _ in _core.close_codes()]
    of_rfc_6455 = [1000, 1001, 1002, 1007, 1008, 1009, 1013]
    assert codes == [*of_rfc_6455, 4001, 4002, 4003, 4004, 4500, 4501, 4502, 4503]


def test_final_codes_advise_not_to_reconnect() -> None:
    for code, _, advice in _core.close_codes():
        assert ("Don't reconnect" in advice) == (code >= FIRST_FINAL_CODE), code


def test_code_of_stopping_node_has_reason_of_table() -> None:
    assert (GOING_AWAY, reason(GOING_AWAY)) == (1001, "going away")
