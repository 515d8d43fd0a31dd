"""Which values and keys the key-value store takes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homewire.errors import InvalidInput
from homewire.store import checks

SCALARS = st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('[]{}"\\,:aé\n'))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def depth(value: object) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 0


@given(VALUES, st.integers(0, 70))
def test_value_may_be_so_deep_and_no_deeper(value: object, more: int) -> None:
    # Wide before it is deep, so that counting brackets is not enough.
    deep: object = [value, *([[]] * 70)]
    for level in range(more):
        deep = [deep] if level % 2 else {"[{": deep}
    written = json.dumps(deep).encode()
    if depth(deep) <= checks.MAX_JSON_DEPTH:
        assert checks.json_value("value", written) == written
        return
    with pytest.raises(InvalidInput) as refused:
        checks.json_value("value", written)
    assert refused.value.data["field"] == "value"


def test_value_may_be_so_long_and_no_longer() -> None:
    longest = b'"%b"' % (b"x" * (checks.MAX_JSON_BYTES - 2))
    assert checks.json_value("value", longest) == longest
    with pytest.raises(InvalidInput):
        checks.json_value("value", longest + b" ")


@pytest.mark.parametrize("key", ["a", "7", "a-b_c", "A--9", "x" * 256])
def test_keys(key: str) -> None:
    assert checks.value_key(key) == key


@pytest.mark.parametrize(
    "key", ["", "_a", "a_", "-", "a.b", "a b", "é", "a\n", "a\x00b", "x" * 257, "_bytes"]
)
def test_no_keys(key: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        checks.value_key(key)
    assert refused.value.data["field"] == "key"
