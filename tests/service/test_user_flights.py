"""Requests that miss the same user at the same time share one read, and none suffers from another."""

import asyncio
from collections.abc import Iterator

import pytest

from service.errors import StoreError
from service.user_features import UserReader
from tests.service.gated_store import LONG_S, World, settle, version_of


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.store.versions["anna"] = 1
    yield made
    made.close()


def test_concurrent_misses_share_one_read(world: World) -> None:
    tasks = [world.read("anna") for _ in range(10)]
    other = world.read("bert")
    assert [call.user_id for call in world.store.reads] == ["anna", "bert"]
    world.answer(world.store.reads[0])
    assert [version_of(task.result()) for task in tasks] == [1] * 10
    assert not other.done()
    text = world.metrics.render().decode()
    assert 'adrank_user_cache_reads_total{outcome="miss"} 2.0' in text
    assert 'adrank_user_cache_reads_total{outcome="joined"} 9.0' in text
    world.read("anna")
    assert 'adrank_user_cache_reads_total{outcome="hit"} 1.0' in world.metrics.render().decode()


@pytest.mark.parametrize("cancelled", [[0], [1], [0, 1], [2]])
def test_a_cancelled_request_takes_nothing_from_the_others(world: World, cancelled: list[int]) -> None:
    tasks = [world.read("anna") for _ in range(3)]
    for i in cancelled:
        tasks[i].cancel()
    world.run(settle())
    assert len(world.store.reads) == 1
    world.answer(world.store.reads[0])
    for i, task in enumerate(tasks):
        if i in cancelled:
            assert task.cancelled()
        else:
            assert version_of(task.result()) == 1
    assert version_of(world.read("anna").result()) == 1
    assert world.store.begun == 1


def test_a_read_that_nobody_waits_for_any_more_is_kept(world: World) -> None:
    task = world.read("anna")
    task.cancel()
    world.run(settle())
    world.answer(world.store.reads[0])
    assert version_of(world.read("anna").result()) == 1
    assert world.store.begun == 1


def test_each_request_keeps_its_own_deadline(world: World) -> None:
    patient = world.read("anna")
    late = world.run(world.reader.read("anna", 0.02))
    assert late.degraded == "user_features: timeout"
    assert world.store.begun == 1
    assert not patient.done()
    world.answer(world.store.reads[0])
    assert (version_of(patient.result()), patient.result().degraded) == (1, None)


def test_a_late_request_is_answered_with_an_older_copy(world: World) -> None:
    assert world.found("anna") == 1
    world.clock.now += 1.0
    late = world.run(world.reader.read("anna", 0.02))
    assert (version_of(late), late.degraded) == (1, "user_features: timeout, stale copy")


def test_a_failed_read_fails_for_all_who_wait_and_for_nobody_after(world: World) -> None:
    tasks = [world.read("anna") for _ in range(3)]
    world.store.fail(world.store.reads[0])
    world.run(settle())
    assert {task.result().degraded for task in tasks} == {"user_features: store unavailable"}
    assert world.found("anna") == 1


def test_one_read_that_fails_counts_once_for_the_breaker(world: World) -> None:
    failed = 0

    class Counting:
        def allows(self) -> bool:
            return True

        def succeeded(self) -> None:
            raise AssertionError("no read succeeded")

        def failed(self) -> None:
            nonlocal failed
            failed += 1

    world.reader._breaker = Counting()  # type: ignore[assignment]
    for _ in range(5):
        world.read("anna")
    world.store.fail(world.store.reads[0])
    world.run(settle())
    assert failed == 1


def test_a_request_may_join_a_read_while_the_breaker_is_open() -> None:
    world = World()
    world.reader._breaker._failures = 1
    first = world.read("anna")
    world.read("bert")
    world.store.fail(world.store.reads[1])
    world.run(settle())
    joined = world.read("anna")
    skipped = world.read("carl")
    assert skipped.result().degraded == "user_features: store skipped after failures"
    world.answer(world.store.reads[0])
    assert [task.result().degraded for task in (first, joined)] == [None, None]
    world.close()


def test_what_is_under_way_ends_with_the_reader(world: World) -> None:
    world.read("anna")
    world.read("bert")

    async def stopped() -> int:
        await world.reader.stop()
        return len([task for task in asyncio.all_tasks() if "_fetch" in repr(task) or "_follow" in repr(task)])

    assert world.run(stopped()) == 0


def test_an_unexpected_error_while_following_is_logged_and_following_goes_on(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service import user_features

    monkeypatch.setattr(user_features, "FIRST_PAUSE_S", 0.0)
    world.begin_telling()
    assert world.store._lost is not None
    world.store.up.clear()
    world.store.told = None
    world.store._lost.set_exception(KeyError("surprise"))
    world.run(settle())
    assert "following the store's changes failed" in caplog.text
    assert "adrank_user_cache_told 0.0" in world.metrics.render().decode()
    world.begin_telling()
    assert "adrank_user_cache_told 1.0" in world.metrics.render().decode()


def test_an_outage_is_one_warning(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service import user_features

    monkeypatch.setattr(user_features, "LONGEST_PAUSE_S", 0.0001)
    monkeypatch.setattr(user_features, "FIRST_PAUSE_S", 0.0002)

    async def refused(*_: object) -> None:
        raise StoreError("not today")

    monkeypatch.setattr(world.store, "follow", refused)

    async def for_a_while() -> None:
        reader = UserReader(world.store, world.reader._breaker, world.metrics, world.cache, LONG_S)
        reader.start()
        await asyncio.sleep(0.05)
        await reader.stop()

    world.run(for_a_while())
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in warnings] == [
        "the store does not tell which users change: not today; trying again"
    ]
