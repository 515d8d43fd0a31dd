"""Names of headers that are ours."""

from __future__ import annotations

from typing import Final

RANGE: Final = "vnd.tinkermode.range"
"""Of a list: `<first>-<last>/<how many there are>`."""
