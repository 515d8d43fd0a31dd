"""How long the client waits before it connects again, against the table of close codes."""

from __future__ import annotations

import re

import pytest

from homewire import _core
from homewire.client import AFTER_CLOSE, FIRST_FINAL_CODE, UNREACHABLE, Backoff, _seconds
from homewire.realtime.close_codes import FIRST_FINAL_CODE as SERVERS

ADVICE = {code: advice for code, _, advice in _core.close_codes()}


def highest(_low: float, high: float) -> float:
    return high


def lowest(low: float, _high: float) -> float:
    return low


@pytest.mark.parametrize("code", [code for code in ADVICE if 1000 < code < SERVERS])
def test_delay_after_each_close_code_is_the_one_of_the_table(code: int) -> None:
    delay = AFTER_CLOSE.get(code, UNREACHABLE)
    shortest, longest = Backoff(lowest).next_s(delay), Backoff(highest).next_s(delay)
    if "at once" in ADVICE[code]:
        assert (shortest, longest) == (0.0, 0.0)
    elif random := re.search(r"random delay of up to (\d+) s", ADVICE[code]):
        assert (shortest, longest) == (0.0, float(random[1]))
    else:
        fixed = re.search(r"after (\d+) s", ADVICE[code])
        assert fixed is not None
        assert shortest == float(fixed[1])
        assert longest > shortest


def test_client_and_server_agree_on_which_codes_are_final() -> None:
    assert FIRST_FINAL_CODE == SERVERS


def test_delays_double_up_to_their_limit_and_begin_anew_after_a_steady_connection() -> None:
    backoff = Backoff(highest)
    assert [backoff.next_s(UNREACHABLE) for _ in range(6)] == [1, 2, 4, 8, 10, 10]
    backoff.steady()
    assert backoff.next_s(UNREACHABLE) == 1
    busy = AFTER_CLOSE[1013]
    assert [backoff.next_s(busy) for _ in range(7)][-1] == 61


def test_second_close_in_a_row_is_not_answered_at_once() -> None:
    backoff = Backoff(highest)
    assert [backoff.next_s(AFTER_CLOSE[4004]) for _ in range(3)] == [0, 2, 4]


def test_delays_are_spread_over_the_whole_range() -> None:
    delays = [Backoff().next_s(AFTER_CLOSE[1001]) for _ in range(1000)]
    assert 0.0 <= min(delays) < 0.1
    assert 0.9 < max(delays) <= 1.0


def test_retry_after_is_seconds_or_a_date() -> None:
    assert _seconds("17") == 17.0
    assert _seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert _seconds("Fri, 21 Oct 2099 07:28:00 GMT") > 1e8
    assert _seconds("soon") == _seconds("") == _seconds("-1") == 0.0
