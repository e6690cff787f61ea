import pytest

from bundle.record import Event, UserRecord, pack
from service.user_cache import CHANGED, NOBODY_COSTS, OVERHEAD, Limits, StoredUser, UserCache
from tests.service.gated_store import Clock

RECORD = pack(UserRecord({"city": "Lyon"}, (Event("click", 1, (1000,)),)))
COST = OVERHEAD + 1 + 2 * len(RECORD)


def cache_of(clock: Clock | None = None, **limits: float) -> UserCache:
    values = {"users": 100, "bytes": 10**6, "told_s": 60.0, "untold_s": 1.0, "stale_s": 300.0} | limits
    return UserCache(Limits(**values), clock or Clock())  # type: ignore[arg-type]


def user() -> StoredUser:
    return StoredUser(RECORD)


def test_a_record_is_fresh_for_less_time_while_nobody_tells_of_changes() -> None:
    clock = Clock()
    cache = cache_of(clock)
    cache.put("x", user(), clock.now, cache.state)
    clock.now += 0.9
    assert cache.fresh("x") is not None
    clock.now += 0.1
    assert cache.fresh("x") is None
    cache.told(True)
    cache.put("x", user(), clock.now, cache.state)
    clock.now += 59.0
    assert cache.fresh("x") is not None
    clock.now += 1.0
    assert cache.fresh("x") is None


def test_age_counts_from_when_the_read_began() -> None:
    clock = Clock()
    cache = cache_of(clock)
    began = clock.now
    clock.now += 0.9
    cache.put("x", user(), began, cache.state)
    assert cache.fresh("x") is not None
    clock.now += 0.1
    assert cache.fresh("x") is None


def test_limits_of_zero_serve_nothing() -> None:
    cache = cache_of(told_s=0.0, untold_s=0.0)
    for told in (False, True):
        cache.told(told)
        cache.put("x", user(), cache.clock(), cache.state)
        assert cache.fresh("x") is None
        assert cache.copy("x") is not None
    for none in ({"users": 0}, {"bytes": 0}):
        cache = cache_of(**none)  # type: ignore[arg-type]
        cache.put("x", user(), cache.clock(), cache.state)
        assert (len(cache), cache.bytes, cache.fresh("x"), cache.copy("x")) == (0, 0, None, None)


def test_what_was_read_before_telling_began_or_ended_is_not_fresh() -> None:
    cache = cache_of()
    before = cache.state
    cache.put("x", user(), cache.clock(), before)
    for told in (True, False, True):
        cache.told(told)
        assert cache.fresh("x") is None
        cache.put("late", user(), cache.clock(), before)  # a read that began before and was answered after
        assert cache.fresh("late") is None
        cache.put("x", user(), cache.clock(), cache.state)
        assert cache.fresh("x") is not None
        assert cache.copy("late") is not None


def test_a_change_leaves_a_copy_for_when_the_store_fails() -> None:
    clock = Clock()
    cache = cache_of(clock)
    cache.told(True)
    cache.put("x", user(), clock.now, cache.state)
    cache.put("y", user(), clock.now, CHANGED)
    assert [cache.changed(name) for name in ("x", "x", "y", "z")] == [True, False, False, False]
    for name in ("x", "y"):
        assert cache.fresh(name) is None
        copy = cache.copy(name)
        assert copy is not None
        assert copy.packed == RECORD
    clock.now += 300.1
    assert cache.copy("x") is None


def test_an_earlier_read_does_not_replace_a_later_one() -> None:
    cache = cache_of()
    later = user()
    cache.put("x", later, 102.0, cache.state)
    cache.put("x", user(), 101.0, cache.state)
    cache.put("x", None, 101.0, CHANGED)
    entry = cache.fresh("x")
    assert entry is not None
    assert entry.user is later


def test_a_user_that_is_unknown_is_remembered_too_and_leaves_no_copy() -> None:
    cache = cache_of()
    cache.put("x", user(), 100.0, cache.state)
    cache.put("x", None, 100.0, cache.state)
    entry = cache.fresh("x")
    assert entry is not None
    assert entry.user is None
    assert cache.copy("x") is None
    assert cache.bytes == NOBODY_COSTS + 1


def test_the_least_recently_used_give_way() -> None:
    cache = cache_of(users=2)
    for name in ("x", "y"):
        cache.put(name, user(), cache.clock(), cache.state)
    assert cache.fresh("x") is not None
    cache.put("z", user(), cache.clock(), cache.state)
    assert [cache.fresh(name) is not None for name in ("x", "y", "z")] == [True, False, True]


def test_bytes_are_bounded_and_counted() -> None:
    cache = cache_of(bytes=3 * COST)
    for name in "abcdef":
        cache.put(name, user(), cache.clock(), cache.state)
        assert cache.bytes == len(cache) * COST <= 3 * COST
    assert [cache.fresh(name) is not None for name in "abcdef"] == [False, False, False, True, True, True]
    cache.put("g", StoredUser(RECORD * 20), cache.clock(), cache.state)
    assert cache.fresh("g") is not None
    assert cache.bytes <= 3 * COST


def test_a_record_that_does_not_fit_is_not_kept_and_nor_is_its_predecessor() -> None:
    cache = cache_of(bytes=3 * COST)
    for name in "ab":
        cache.put(name, user(), cache.clock(), cache.state)
    cache.put("a", StoredUser(RECORD * 1000), cache.clock(), cache.state)
    assert cache.copy("a") is None
    assert cache.fresh("b") is not None
    assert cache.bytes == COST


@pytest.mark.parametrize("events", [0, 5, 50])
def test_a_user_takes_no_more_memory_than_is_charged(events: int) -> None:
    import tracemalloc

    import numpy as np

    from service.user_cache import EncodedUser

    clicks = tuple(Event("click", 1650812741436 + i, (100_000 + i,)) for i in range(events))
    packed = [pack(UserRecord({"city": "Lyon", "age": i}, clicks)) for i in range(500)]
    cache = cache_of(users=1000, bytes=10**9)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for i, record in enumerate(packed):
        stored = StoredUser(bytes(bytearray(record)))
        ids = np.zeros((max(1, events), 2), np.int64)
        stored.encoded = EncodedUser("b", f"u{i}", np.zeros(3, np.int64), np.zeros(2, np.float32), {"clicks": ids})
        cache.put(f"u{i}", stored, clock := cache.clock(), cache.state)
        del stored, ids, clock
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.3 * cache.bytes < used < cache.bytes
