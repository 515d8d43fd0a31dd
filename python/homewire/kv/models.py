"""Records of kv."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyValue:
    """A value of a home or device (spec 001, *Key-value store*), as it was put: JSON, byte for byte."""

    key: str
    value: bytes
    modified_ms: int
