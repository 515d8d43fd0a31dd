"""Which files start first."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

TESTS: Final = Path(__file__).parents[1]
LONGEST: Final = (
    "parts/store/test_store_deaths.py",
    "service/presence/test_presence_of_dead_nodes.py",
    "service/access/test_api_access.py",
    "service/rest/test_api_fuzz.py",
    "service/redis/test_sentinel.py",
    "service/limits/test_limits_nodes.py",
    "service/messages/test_messages_sent.py",
    "service/listening/test_handoff.py",
    "service/limits/test_bounds_entrance.py",
    "service/webhooks/test_webhook_nodes.py",
    "service/client/test_documents_run.py",
    "service/listening/test_sockets.py",
    "service/server/test_tls.py",
    "service/logins/test_api_attempts.py",
    "service/compat/test_login_views.py",
    "service/presence/test_stepped_clock.py",
    "service/client/test_client.py",
    "unit/cli/test_cli_program.py",
    "service/webhooks/test_webhook_failures.py",
    "service/limits/test_fairness_descriptors.py",
    "service/server/test_trusted_proxies.py",
    "service/logins/test_api_attempts_strangers.py",
    "parts/bus/test_bus_append.py",
    "service/server/test_entrance_manners.py",
    "service/users/test_api_registrations.py",
    "service/limits/test_fairness_sockets.py",
    "service/limits/test_bounds_outboxes.py",
    "service/limits/test_descriptors.py",
)
"""By duration, longest first. A worker has all tests of a file: one that starts late would end alone."""


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files in front; the others keep their order."""
    order = {TESTS / name: place for place, name in enumerate(LONGEST)}
    gone = [str(path.relative_to(TESTS)) for path in order if not path.exists()]
    if gone:
        raise pytest.UsageError(f"tests/kit/order.py names files that do not exist: {gone}")
    items.sort(key=lambda item: order.get(item.path, len(order)))
