"""Which files start first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parents[1]
LONGEST: Final = (
    "service/presence/test_presence_of_dead_nodes.py",
    "service/limits/test_bounds_entrance.py",
    "service/access/test_api_access.py",
    "unit/cli/test_cli_program.py",
    "service/rest/test_api_fuzz.py",
    "service/client/test_documents_run.py",
    "parts/permissions/test_store_permissions.py",
    "service/presence/test_stepped_clock.py",
    "service/webhooks/test_webhook_nodes.py",
    "service/sessions/test_session_lifetimes.py",
    "service/client/test_client.py",
    "service/limits/test_fairness_descriptors.py",
    "service/limits/test_fairness_sockets.py",
    "service/logins/test_api_attempts_strangers.py",
    "unit/cli/test_cli_smart_modules.py",
    "unit/cli/test_cli_errors.py",
    "service/limits/test_descriptors.py",
    "service/listening/test_sockets.py",
    "service/server/test_tls.py",
    "service/rest/test_generated_clients.py",
    "service/logins/test_api_sign_in_secrets.py",
    "service/access/test_authorise_again.py",
    "service/store/test_housekeeping.py",
    "service/limits/test_limits_nodes.py",
    "service/limits/test_bounds_answers.py",
    "unit/server/test_connections.py",
)
"""By duration, longest first. A worker has all tests of a file: one that starts late would end alone."""


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files in front; the others keep their order."""
    order = {TESTS / name: place for place, name in enumerate(LONGEST)}
    gone = [str(path.relative_to(TESTS)) for path in order if not path.exists()]
    if gone:
        raise pytest.UsageError(f"tests/kit/order.py names files that do not exist: {gone}")
    items.sort(key=lambda item: order.get(item.path, len(order)))
