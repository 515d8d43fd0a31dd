"""The note of where a node listens."""

from __future__ import annotations

import stat
from pathlib import Path

from homewire.node_address import NOTE, noted, running_node


def test_note_is_believed_while_its_node_listens(tmp_path: Path) -> None:
    assert running_node(tmp_path) is None
    with noted(tmp_path, "http://127.0.0.1:1234"):
        assert running_node(tmp_path) == "http://127.0.0.1:1234"
        assert stat.S_IMODE((tmp_path / NOTE).stat().st_mode) == 0o600
        left_behind = (tmp_path / NOTE).read_bytes()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / NOTE).write_bytes(left_behind)
    assert running_node(tmp_path) is None


def test_note_of_a_later_node_outlives_the_earlier_one(tmp_path: Path) -> None:
    earlier = noted(tmp_path, "http://127.0.0.1:1")
    earlier.__enter__()
    with noted(tmp_path, "http://127.0.0.1:2"):
        earlier.__exit__(None, None, None)
        assert running_node(tmp_path) == "http://127.0.0.1:2"


def test_no_data_directory_is_made_for_a_note(tmp_path: Path) -> None:
    with noted(tmp_path / "none", "http://127.0.0.1:1"):
        assert running_node(tmp_path / "none") is None
    assert list(tmp_path.iterdir()) == []
