"""What a slim image or another locale lacks is not needed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "python"


def run(code: str, *arguments: str, **environment: str) -> str:
    """What a fresh interpreter prints, with these variables and without UTF-8 mode."""
    command = [sys.executable, "-X", "utf8=0", "-c", code, *arguments]
    own = {**os.environ, "PYTHONPATH": str(SOURCES), **environment}
    return subprocess.run(command, env=own, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/Argentina/Buenos_Aires", "UTC"])
def test_time_zones_are_known_on_a_machine_without_a_time_zone_database(name: str) -> None:
    code = "import sys; from homewire.store.checks import timezone; print(timezone(sys.argv[1]))"
    assert run(code, name, PYTHONTZPATH="") == name


def test_data_directory_may_have_characters_that_locale_lacks(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from homewire.redis.data_dir import DataDirectory, noted_socket

with_letters = Path(sys.argv[1])
directory = DataDirectory.take(with_letters)
print(noted_socket(with_letters) == directory.socket)
"""
    assert run(code, str(tmp_path / "Küche"), LC_ALL="C", PYTHONCOERCECLOCALE="0") == "True"
