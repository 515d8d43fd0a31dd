"""The caches forget in time, and never hold more than they may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from homewire.gateway.expiring import ExpiringCache, RecentIds


class Clock:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_an_entry_lives_for_its_lifetime() -> None:
    clock = Clock()
    cache: ExpiringCache[str, int] = ExpiringCache(1.0, 10, clock)
    cache.put("a", 1)
    clock.now += 0.999
    assert cache.get("a") == 1
    clock.now += 0.001
    assert cache.get("a") is None


def test_the_oldest_goes_when_the_cache_is_full_and_the_expired_with_the_next() -> None:
    clock = Clock()
    cache: ExpiringCache[str, int] = ExpiringCache(1.0, 2, clock)
    for number, name in enumerate("abc"):
        cache.put(name, number)
    assert [cache.get(name) for name in "abc"] == [None, 1, 2]
    cache.put("b", 3)
    cache.put("d", 4)
    assert [cache.get(name) for name in "bcd"] == [3, None, 4]
    clock.now += 1
    cache.put("e", 5)
    assert len(cache) == 1


def test_a_cache_without_capacity_remembers_nothing() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(1.0, 0)
    cache.put("a", 1)
    assert cache.get("a") is None


Step = st.tuples(st.floats(0.0, 0.8), st.sampled_from("ab"), st.sets(st.integers(1, 9), max_size=4))


@given(st.lists(Step, max_size=30))
def test_ids_are_known_for_half_a_lifetime_and_never_beyond_it(
    steps: list[tuple[float, str, set[int]]],
) -> None:
    clock = Clock()
    recent: RecentIds[str] = RecentIds(1.0, 1_000, clock)
    seen: dict[tuple[str, int], float] = {}
    for wait, whose, ids in steps:
        clock.now += wait
        for name in "ab":
            known = recent.known(name, range(1, 10))
            ages = {each: clock.now - at for (owner, each), at in seen.items() if owner == name}
            assert {each for each, age in ages.items() if age < 0.5} <= known
            assert known <= {each for each, age in ages.items() if age < 1.0}
        recent.remember(whose, ids)
        seen.update({(whose, each): clock.now for each in ids})


def test_ids_beyond_the_capacity_push_older_ones_out() -> None:
    recent: RecentIds[str] = RecentIds(1.0, 4, Clock())
    for number in range(1, 7):
        recent.remember("a", {number})
    known = recent.known("a", range(1, 7))
    assert 6 in known
    assert len(known) <= 4
