"""Every reason that a refusal may carry is in the table, and the page is the table."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from homewire.errors import PermissionDenied, RequestError
from homewire.reasons import FIELDS, REASONS, markdown

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"(?!HOMEWIRE_|TCP_)[A-Z]+(_[A-Z]+)+")
"""Settings and options of sockets have that form, too."""
NO_REASONS = {"NO_COLOR", "KEY_VALUES_MISMATCH", "SC_PAGE_SIZE", "SC_PHYS_PAGES", "EVAL_RO", "EVALSHA_RO"}
"""Texts of that form which are those of OpenSSL, the terminal, the system and Redis."""
NAMED_WHERE_RAISED = {
    "AMBIGUOUS_PROJECT", "DEVICE_NOT_IN_HOME", "DEVICE_OFFLINE", "IDEMPOTENCY_KEY_REUSED",
    "INSUFFICIENT_AUTH", "INVALID_AUTH_CODE", "INVALID_EMAIL", "INVALID_PARAMETER", "INVALID_PHONE_NUMBER",
    "PASSWORD_TOO_SHORT", "PASSWORD_TOO_WEAK", "PERMISSION_DENIED", "QUOTA_EXCEEDED", "UNKNOWN_PROJECT",
}  # fmt: skip
ELSEWHERE = {"reasons.py", "settings.py", "environment.py", "program.py"}
"""Here such texts are variables of the environment, or reasons of the command line alone."""


def texts() -> Iterator[str]:
    """All texts of the sources that look like a reason."""
    for path in (ROOT / "python" / "homewire").rglob("*.py"):
        if path.name not in ELSEWHERE:
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and CODE.fullmatch(node.value)
                ):
                    yield node.value


def errors(of: type[RequestError] = RequestError) -> Iterator[type[RequestError]]:
    yield of
    for each in of.__subclasses__():
        yield from errors(each)


def test_page_is_current() -> None:
    assert (ROOT / "docs" / "errors.md").read_text() == markdown(), "run `make docs`"


def test_every_reason_is_in_the_table_and_no_other() -> None:
    assert set(texts()) - NO_REASONS == set(REASONS)


def test_every_refusal_of_input_names_a_field() -> None:
    """The usual one of its reason, unless what raises it names its own, a limit, or what the key needs."""
    refused = {name for name, row in REASONS.items() if row.status in (400, 403)}
    assert refused - FIELDS.keys() == NAMED_WHERE_RAISED
    assert FIELDS.keys() <= refused
    for reason, field in FIELDS.items():
        assert PermissionDenied(reason, problem="p").data == {"field": field, "problem": "p"}
        assert PermissionDenied(reason, field="other").data == {"field": "other"}


def test_each_error_has_the_status_of_its_reason() -> None:
    for error in errors():
        assert REASONS[error.default_reason].status == error.status, error
