"""The shape of tokens, judged without a lookup."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, strategies

from homewire.auth import tokens


@given(strategies.integers(1, 10**16 - 1))
def test_minted_token_parses_to_its_reference(project_id: int) -> None:
    token, reference = tokens.mint(project_id)
    assert tokens.parse(token) == reference
    assert reference.project_id == project_id
    assert reference.hash == hashlib.sha256(token.encode()).hexdigest()
    assert reference.key_tag == int.from_bytes(hashlib.sha256(token.encode()).digest()[:8], "big")


def test_no_token_comes_twice() -> None:
    assert len({tokens.mint(1)[0] for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1.1.",
        "v1.1." + "a" * 42,
        "v1.1." + "a" * 44,
        "v1.1." + "a" * 42 + "=",
        "v1.1." + "a" * 43 + "\n",
        "v1.0." + "a" * 43,
        "v1.01." + "a" * 43,
        "v1.-1." + "a" * 43,
        "v1.\u0661." + "a" * 43,
        "v1." + "9" * 17 + "." + "a" * 43,
        "v2.1." + "a" * 43,
        " v1.1." + "a" * 43,
        "v1.1." + "ä" * 43,
    ],
)
def test_other_shapes_are_no_tokens(text: str) -> None:
    assert tokens.parse(text) is None


@given(strategies.text())
def test_any_text_is_judged_without_an_error(text: str) -> None:
    tokens.parse(text)
