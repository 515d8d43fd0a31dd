"""What makes two requests with one Idempotency-Key the same request."""

from __future__ import annotations

import dataclasses

import pytest

from homewire.auth.models import Principal, PrincipalKind
from homewire.events.context import IdempotentRequest, idempotent_request
from homewire.limits.rates import Rates
from homewire.settings import Settings

RATES = Rates(Settings())
DEVICE = Principal(PrincipalKind.DEVICE, 1, 11, 0)


def made(key: str, sender: Principal, operation: str = "PUT /a", body: bytes = b"{}") -> IdempotentRequest:
    request = idempotent_request(RATES, key, sender, operation, body)
    assert request is not None
    return request


def test_request_without_key_is_not_idempotent() -> None:
    assert idempotent_request(RATES, None, DEVICE, "PUT /a", b"{}") is None


def test_same_request_after_a_rotation_of_the_senders_key_is_equal() -> None:
    rotated = dataclasses.replace(DEVICE, key_tag=99)
    assert made("k", DEVICE) == made("k", rotated)


@pytest.mark.parametrize(
    "other",
    [
        made("other", DEVICE),
        made("k", DEVICE, "PUT /b"),
        made("k", dataclasses.replace(DEVICE, id=12)),
        made("k", dataclasses.replace(DEVICE, project_id=2)),
        made("k", dataclasses.replace(DEVICE, kind=PrincipalKind.USER)),
    ],
)
def test_key_operation_and_sender_are_the_scope(other: IdempotentRequest) -> None:
    ours = made("k", DEVICE)
    assert other.scope_key != ours.scope_key
    assert other.fingerprint == ours.fingerprint


def test_body_is_the_fingerprint_and_the_key_is_not_readable_in_the_scope() -> None:
    ours, other = made("k3y", DEVICE), made("k3y", DEVICE, body=b"{ }")
    assert ours.scope_key == other.scope_key
    assert ours.fingerprint != other.fingerprint
    assert "k3y" not in ours.scope_key
