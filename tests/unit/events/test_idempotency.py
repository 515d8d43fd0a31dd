"""What makes two requests with one Idempotency-Key the same request."""

from __future__ import annotations

import dataclasses

import pytest

from homewire.auth.models import Principal, PrincipalKind
from homewire.events.context import Once, claim
from homewire.limits.rates import Rates
from homewire.settings import Settings

RATES = Rates(Settings())
DEVICE = Principal(PrincipalKind.DEVICE, 1, 11, 0)


def test_same_request_makes_the_same_claim() -> None:
    rotated = dataclasses.replace(DEVICE, key_tag=99)
    assert claim(RATES, "k", DEVICE, "PUT /a", b"{}") == claim(RATES, "k", rotated, "PUT /a", b"{}")


@pytest.mark.parametrize(
    "other",
    [
        claim(RATES, "other", DEVICE, "PUT /a", b"{}"),
        claim(RATES, "k", DEVICE, "PUT /b", b"{}"),
        claim(RATES, "k", dataclasses.replace(DEVICE, id=12), "PUT /a", b"{}"),
        claim(RATES, "k", dataclasses.replace(DEVICE, project_id=2), "PUT /a", b"{}"),
        claim(RATES, "k", dataclasses.replace(DEVICE, kind=PrincipalKind.USER), "PUT /a", b"{}"),
    ],
)
def test_key_operation_and_sender_are_the_scope(other: Once) -> None:
    ours = claim(RATES, "k", DEVICE, "PUT /a", b"{}")
    assert other.scope_key != ours.scope_key
    assert other.fingerprint == ours.fingerprint


def test_body_is_the_fingerprint_and_the_key_is_not_readable_in_the_scope() -> None:
    ours, other = claim(RATES, "k3y", DEVICE, "PUT /a", b"{}"), claim(RATES, "k3y", DEVICE, "PUT /a", b"{ }")
    assert ours.scope_key == other.scope_key
    assert ours.fingerprint != other.fingerprint
    assert "k3y" not in ours.scope_key
