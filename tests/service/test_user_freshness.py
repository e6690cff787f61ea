"""What a read may answer, whatever happens in between: never less than what this process was told or wrote itself."""

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from service import user_features
from service.features import Appended
from service.user_cache import OVERHEAD
from service.user_features import UserFeatures
from tests.service.gated_store import Call, World, settle, version_of

USERS = ("anna", "anna", "anna", "bert")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_features, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(user_features, "LONGEST_PAUSE_S", 0.0)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_a_second_read_needs_no_store(world: World) -> None:
    world.begin_telling()
    world.store.write("anna")
    world.store.news.clear()
    assert [world.found("anna") for _ in range(3)] == [1, 1, 1]
    assert world.store.begun == 1
    assert [world.found("nobody") for _ in range(3)] == [0, 0, 0]
    assert world.store.begun == 2


def test_a_told_change_is_read(world: World) -> None:
    world.begin_telling()
    assert world.found("anna") == 0
    world.store.write("anna")
    assert world.found("anna") == 0, "nobody was told yet"
    world.store.deliver()
    assert world.found("anna") == 1


def test_a_change_told_while_the_read_is_under_way_is_not_lost(world: World) -> None:
    world.begin_telling()
    early = world.read("anna")
    (call,) = world.store.reads
    world.store.run(call)  # Redis reads version 0 ...
    world.store.write("anna")  # ... then somebody writes ...
    world.store.deliver()  # ... and the news overtake the answer
    late = world.read("anna")
    world.store.answer(call)
    world.run(settle())
    assert version_of(early.result()) == 0
    assert not late.done(), "who asks after the news does not wait for an answer from before"
    world.answer(world.store.reads[0])
    assert version_of(late.result()) == 1
    assert world.found("anna") == 1


@pytest.mark.parametrize("version", [0, 1], ids=["unknown", "known"])
@pytest.mark.parametrize("news", ["a change", "telling begins", "telling ends"])
def test_an_overtaken_answer_is_not_kept_as_fresh(world: World, version: int, news: str) -> None:
    if news != "telling begins":
        world.begin_telling()
    world.store.versions["anna"] = version
    reading = world.read("anna")
    (call,) = world.store.reads
    world.store.run(call)
    world.store.write("anna")
    if news == "a change":
        world.store.deliver()
    elif news == "telling begins":
        world.begin_telling()
    else:
        world.store.lose()
        world.run(settle())
    world.store.answer(call)
    world.run(settle())
    assert version_of(reading.result()) == version
    assert world.found("anna") == version + 1


@pytest.mark.parametrize("version", [0, 1], ids=["unknown", "known"])
def test_age_counts_from_when_the_read_began(world: World, version: int) -> None:
    world.store.versions["anna"] = version
    world.read("anna")
    world.clock.now += 0.9
    world.answer(world.store.reads[0])
    world.store.write("anna")
    assert world.found("anna") == version
    world.clock.now += 0.1
    assert world.found("anna") == version + 1


def test_an_answer_overtaken_twice_does_not_replace_the_later_one(world: World) -> None:
    world.begin_telling()
    world.read("anna")
    first = world.store.reads[0]
    world.store.run(first)
    world.store.write("anna")
    world.store.deliver()
    world.clock.now += 0.1
    assert world.found("anna") == 1
    world.store.answer(first)
    world.run(settle())
    begun = world.store.begun
    assert world.found("anna") == 1
    assert world.store.begun == begun


def test_own_events_are_seen_at_once_without_news(world: World) -> None:
    for _ in range(2):
        assert world.found("anna") == 0
        appending = world.loop.create_task(world.reader.append({"anna": b""}))
        world.run(settle())
        world.answer(world.store.appends[0])
        assert appending.done()
        assert world.found("anna") == world.store.versions["anna"]
        world.store.versions.clear()
        world.clock.now += 2.0
        world.begin_telling()


def test_events_that_may_or_may_not_be_stored_are_read_again(world: World) -> None:
    world.begin_telling()
    assert world.found("anna") == 0
    appending = world.loop.create_task(world.reader.append({"anna": b""}))
    world.run(settle())
    call = world.store.appends[0]
    world.store.run(call)
    world.store.news.clear()
    world.store.fail(call, "timeout")
    world.run(settle())
    assert appending.exception() is not None
    assert world.found("anna") == 1


def test_when_telling_ends_nothing_kept_is_fresh_and_all_of_it_is_when_the_store_fails(world: World) -> None:
    world.begin_telling()
    world.store.write("anna")
    assert world.found("anna") == 1
    world.store.write("anna")
    world.store.lose()
    world.run(settle())
    reading = world.read("anna")
    world.store.fail(world.store.reads[0])
    world.run(settle())
    assert version_of(reading.result()) == 1
    assert reading.result().degraded == "user_features: store unavailable, stale copy"
    assert world.found("anna") == 2
    world.store.write("anna")
    assert world.found("anna") == 2, "for a second, nobody tells"
    world.clock.now += 1.0
    assert world.found("anna") == 3


def test_a_read_from_before_telling_began_is_not_fresh_afterwards(world: World) -> None:
    reading = world.read("anna")
    (call,) = world.store.reads
    world.store.run(call)
    world.store.write("anna")
    world.begin_telling()
    later = world.read("anna")
    world.store.answer(call)
    world.run(settle())
    assert (reading.done(), later.done()) == (True, False)
    world.answer(world.store.reads[0])
    assert version_of(later.result()) == 1


def test_all_may_have_changed(world: World) -> None:
    world.begin_telling()
    assert world.found("anna") == 0
    world.store.versions["anna"] = 5
    assert world.found("anna") == 0
    assert world.store.told is not None
    world.store.told()
    assert world.found("anna") == 5


def test_telling_begins_again_after_each_loss(world: World) -> None:
    for _ in range(3):
        world.begin_telling()
        assert world.found("anna") == world.store.versions.get("anna", 0)
        world.store.lose()
        world.run(settle())
        world.store.write("anna")


@dataclass
class Reading:
    """A request that waits, and the least it may be answered."""

    task: "asyncio.Task[UserFeatures]"
    user_id: str
    least: int


class Walk:
    """Reads, writes, news, losses, cancelled requests and evictions in a random order.

    `least` is what a read that begins now must find at least: all that was told or that this process wrote itself, and
    what the server held a limit's time ago.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(bytes=2 * OVERHEAD)  # room for one known user, or several unknown ones
        self.store = self.world.store
        self.least = dict.fromkeys(USERS, 0)
        self.held: list[tuple[float, dict[str, int]]] = []
        self.waiting: list[Reading] = []
        self.appending: list[tuple[asyncio.Task[Appended], Call]] = []
        self.steps = [
            *[self.read] * 4,
            *[self.somebody_writes] * 2,
            self.append,
            *[self.go_on] * 6,
            *[self.news_arrive] * 2,
            self.telling_ends_or_begins,
            self.a_request_is_cancelled,
            self.time_passes,
        ]
        self.hits = self.joined = 0

    def run(self, steps: int) -> None:
        """That many steps. AssertionError when an answer is, or would be, older than it may be."""
        for _ in range(steps):
            self.random.choice(self.steps)()
            self._settle()
            for user in USERS:  # what a hit would answer, without a read that changes what the next steps meet
                entry = self.world.cache.fresh(user)
                if entry is not None:
                    found = UserFeatures(entry.user is not None, stored=entry.user)
                    assert self._least(user) <= version_of(found) <= self.store.versions.get(user, 0)

    def read(self) -> None:
        user, begun = self._user(), self.store.begun
        # A read under way may be joined however long ago it began, which is milliseconds; here it may be a minute.
        least = self.least[user] if self.store.reads else self._least(user)
        reading = Reading(self.world.read(user), user, least)
        self.hits += reading.task.done()
        self.joined += not reading.task.done() and self.store.begun == begun
        self.waiting.append(reading)

    def somebody_writes(self) -> None:
        self.store.write(self._user())

    def append(self) -> None:
        task = self.world.loop.create_task(self.world.reader.append({self._user(): b""}))
        self.world.run(settle())
        self.appending.append((task, self.store.appends[-1]))

    def go_on(self) -> None:
        """The server runs a command, or its answer arrives, in one of ten cases an error."""
        calls = [*self.store.reads, *self.store.appends]
        if not calls:
            return
        call = self.random.choice(calls)
        if call.version is None:
            self.store.run(call)
        elif self.random.random() < 0.1:
            self.store.fail(call, "timeout")
        else:
            self.store.answer(call)

    def news_arrive(self) -> None:
        if self.store.news:
            user, version = self.store.deliver()
            self.least[user] = max(self.least[user], version)

    def telling_ends_or_begins(self) -> None:
        if self.store.told is not None:
            self.store.lose()
            self.world.run(settle())
        else:
            self.world.begin_telling()
        self.least = {user: self.store.versions.get(user, 0) for user in USERS}

    def a_request_is_cancelled(self) -> None:
        if self.waiting:
            self.random.choice(self.waiting).task.cancel()

    def time_passes(self) -> None:
        if not self.store.reads:  # a read lasts milliseconds
            self.held.append((self.world.clock.now, dict(self.store.versions)))
            self.world.clock.now += self.random.choice((0.3, 0.7, 40.0))

    def close(self) -> None:
        for each in self.waiting:
            each.task.cancel()
        self.world.close()

    def _user(self) -> str:
        return self.random.choice(USERS)

    def _least(self, user: str) -> int:
        horizon = self.world.clock.now - (1.0 if self.store.told is None else 60.0)
        return max([self.least[user], *(versions.get(user, 0) for at, versions in self.held if at <= horizon)])

    def _settle(self) -> None:
        self.world.run(settle())
        for each in [each for each in self.waiting if each.task.done()]:
            self.waiting.remove(each)
            if not each.task.cancelled() and each.task.result().degraded is None:
                assert each.least <= version_of(each.task.result()) <= self.store.versions.get(each.user_id, 0)
        for task, call in [pair for pair in self.appending if pair[0].done()]:
            self.appending.remove((task, call))
            if task.exception() is None:
                assert call.version is not None
                self.least[call.user_id] = max(self.least[call.user_id], call.version)


@pytest.mark.parametrize("part", range(4))
def test_no_order_of_events_makes_an_answer_older_than_it_may_be(part: int) -> None:
    hits = joined = 0
    for seed in range(200 * part, 200 * part + 200):
        walk = Walk(seed)
        try:
            walk.run(60)
        except AssertionError as error:
            raise AssertionError(f"walk {seed}") from error
        finally:
            walk.close()
        hits, joined = hits + walk.hits, joined + walk.joined
    assert hits > 100
    assert joined > 100
