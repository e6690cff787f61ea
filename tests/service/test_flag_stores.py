"""The same tests for both stores of flags, then what only Redis can go through."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from service import redis_flags
from service.errors import InvalidRequestError, StoreError
from service.flag_stores import Change, EmbeddedFlags, FlagStore, Mark, News
from service.redis_flags import RedisFlags
from tests.service.conftest import RedisServer, free_port
from tests.service.test_stores import redis_store

PAUSE, RESUME = Change(1, 1), Change(1, 0)
EXHAUST, REFILL = Change(2, 2), Change(2, 0)
MOST = 50
counter = iter(range(10_000))
Scenario = Callable[[Callable[[], FlagStore]], Awaitable[None]]
Run = Callable[[Scenario], None]


@pytest.fixture(params=["embedded", "redis"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scenario with something that opens the same flags again and again."""

    async def scenario_with_stores(scenario: Scenario) -> None:
        if request.param == "embedded":
            embedded = EmbeddedFlags(MOST)
            await scenario(lambda: embedded)
            return
        store = redis_store(request.getfixturevalue("redis_server").url)
        prefix = f"flags{next(counter)}:"
        try:
            await scenario(lambda: RedisFlags(store, prefix, MOST))
        finally:
            await store.close()

    return lambda scenario: asyncio.run(scenario_with_stores(scenario))


class Follower:
    """Takes over news as told."""

    def __init__(self, store: FlagStore) -> None:
        self.store = store
        self.mark: Mark | None = None
        self.flags: dict[str, int] = {}

    async def follow(self) -> News:
        news = await self.store.news(self.mark)
        known = {} if news.whole else self.flags
        self.flags = {ad: flags for ad, flags in (known | news.flags).items() if flags}
        self.mark = news.mark
        assert len(self.flags) == news.size
        return news


def test_flags_are_set_and_taken_back_one_by_one(run: Run) -> None:
    async def scenario(opened: Callable[[], FlagStore]) -> None:
        store, follower = opened(), Follower(opened())
        assert (await follower.follow()).size == 0
        assert await store.change({"a": PAUSE, "b": EXHAUST, "c": RESUME}) == 2
        await follower.follow()
        assert follower.flags == {"a": 1, "b": 2}
        assert await store.change({"a": Change(3, 2), "b": PAUSE}) == 2
        await follower.follow()
        assert follower.flags == {"a": 2, "b": 3}
        assert await store.change({"a": REFILL, "b": RESUME}) == 2
        assert await store.change({"a": REFILL, "b": RESUME}) == 0
        await follower.follow()
        assert follower.flags == {"b": 2}

    run(scenario)


def test_who_knows_everything_is_told_nothing(run: Run) -> None:
    async def scenario(opened: Callable[[], FlagStore]) -> None:
        store, follower = opened(), Follower(opened())
        await store.change({"a": PAUSE})
        await follower.follow()
        await store.change({"a": PAUSE})
        news = await follower.follow()
        assert (news.flags, news.whole) == ({}, False)

    run(scenario)


def test_a_new_follower_gets_everything(run: Run) -> None:
    async def scenario(opened: Callable[[], FlagStore]) -> None:
        store = opened()
        await store.change({f"ad {i}\né": PAUSE for i in range(40)})
        await store.change({f"ad {i}\né": RESUME for i in range(10)})
        late = Follower(opened())
        assert (await late.follow()).whole
        assert late.flags == {f"ad {i}\né": 1 for i in range(10, 40)}

    run(scenario)


def test_too_many_ads_with_flags_are_refused_and_none_is_taken(run: Run) -> None:
    async def scenario(opened: Callable[[], FlagStore]) -> None:
        store, follower = opened(), Follower(opened())
        await store.change({str(i): PAUSE for i in range(MOST)})
        with pytest.raises(InvalidRequestError, match=r"50 ads have flags already, .* more than 50; none was taken"):
            await store.change({"0": EXHAUST, "new": PAUSE})
        await follower.follow()
        assert follower.flags == {str(i): 1 for i in range(MOST)}
        assert await store.change({"0": RESUME, "new": PAUSE}) == 2

    run(scenario)


def test_followers_agree_with_the_store_whatever_happens(run: Run) -> None:
    async def scenario(opened: Callable[[], FlagStore]) -> None:
        draw = random.Random(1)
        store, now = opened(), dict[str, int]()
        followers = [Follower(opened()) for _ in range(3)]
        for _ in range(150):
            changes = {}
            for ad in draw.sample(range(45), draw.randint(1, 10)):
                said = draw.randint(1, 3)
                changes[str(ad)] = Change(said, said & draw.randint(0, 3))
            await store.change(changes)
            now |= {name: now.get(name, 0) & ~change.said | change.on for name, change in changes.items()}
            for follower in followers:
                if draw.random() < 0.3:
                    await follower.follow()
                    assert follower.flags == {ad: flags for ad, flags in now.items() if flags}

    run(scenario)


def with_redis(server: RedisServer, scenario: Callable[[Any, str], Awaitable[None]]) -> None:
    async def run_it() -> None:
        store = redis_store(server.url)
        try:
            await scenario(store, f"flags{next(counter)}:")
        finally:
            await store.close()

    asyncio.run(run_it())


def test_changes_beyond_one_page(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_flags, "PAGE", 7)
    monkeypatch.setattr(redis_flags, "SCAN", 3)

    async def scenario(store: Any, prefix: str) -> None:
        flags = RedisFlags(store, prefix, 100_000)
        follower = Follower(flags)
        for count in (0, 6, 7, 14, 700):  # above 512 entries Redis scans a hash in pieces
            await flags.change({str(i): PAUSE for i in range(count)})
            await follower.follow()
            assert len(follower.flags) == count
        late = Follower(flags)
        await late.follow()
        assert late.flags == follower.flags

    with_redis(redis_server, scenario)


def test_who_fell_behind_reads_everything_again(redis_server: RedisServer) -> None:
    async def scenario(store: Any, prefix: str) -> None:
        flags = RedisFlags(store, prefix, MOST, kept=5)
        follower, other = Follower(flags), Follower(flags)
        await flags.change({"x": PAUSE})
        await follower.follow()
        await other.follow()
        await flags.change({"a": PAUSE, "b": PAUSE, "c": PAUSE, "d": PAUSE})
        assert not (await other.follow()).whole
        await flags.change({"a": RESUME, "e": PAUSE, "x": RESUME})
        assert not (await other.follow()).whole
        assert (await follower.follow()).whole
        assert follower.flags == other.flags == {"b": 1, "c": 1, "d": 1, "e": 1}

    with_redis(redis_server, scenario)


@pytest.mark.parametrize("lost", [("state", "changes", "meta"), ("meta",), ("changes",), ("state",)])
def test_lost_keys_are_noticed(redis_server: RedisServer, lost: Sequence[str]) -> None:
    """Whatever Redis loses, followers have what it holds afterwards, and later changes reach them."""

    async def scenario(store: Any, prefix: str) -> None:
        flags = RedisFlags(store, prefix, MOST)
        follower = Follower(flags)
        await flags.change({str(i): PAUSE for i in range(9)})
        await follower.follow()
        redis: Any = Redis.from_url(redis_server.url)
        await redis.delete(*(prefix + name for name in lost))
        held = {} if "state" in lost else {str(i): 1 for i in range(9)}
        for _ in range(2):
            news = await flags.news(follower.mark)
            known = {} if news.whole else follower.flags
            follower.flags = {ad: each for ad, each in (known | news.flags).items() if each}
            follower.mark = news.mark if len(follower.flags) == news.size else None
        assert follower.flags == held
        await flags.change({"7": EXHAUST, "new": PAUSE})
        await follower.follow()
        assert follower.flags == held | {"7": 2 | held.get("7", 0), "new": 1}
        assert await redis.zcard(prefix + "changes") == (10 if lost == ("state",) else 2)
        await redis.aclose()

    with_redis(redis_server, scenario)


def test_a_redis_that_lost_its_last_writes_is_read_again(redis_server: RedisServer) -> None:
    async def scenario(store: Any, prefix: str) -> None:
        flags = RedisFlags(store, prefix, MOST)
        redis: Any = Redis.from_url(redis_server.url)
        names = [prefix + name for name in ("state", "changes", "meta")]
        await flags.change({"a": PAUSE, "b": PAUSE})
        saved = [await redis.dump(name) for name in names]
        follower = Follower(flags)
        await flags.change({"b": RESUME, "c": PAUSE})
        await follower.follow()
        for name, value in zip(names, saved, strict=True):
            await redis.restore(name, 0, value, replace=True)
        assert (await follower.follow()).whole
        assert follower.flags == {"a": 1, "b": 1}
        await redis.aclose()

    with_redis(redis_server, scenario)


def test_a_key_of_another_kind_is_a_store_error_and_nothing_is_written(redis_server: RedisServer) -> None:
    async def scenario(store: Any, prefix: str) -> None:
        redis: Any = Redis.from_url(redis_server.url)
        await redis.set(prefix + "changes", "x")
        flags = RedisFlags(store, prefix, MOST)
        with pytest.raises(StoreError, match="store unavailable"):
            await flags.change({"a": PAUSE})
        assert await redis.exists(prefix + "state", prefix + "meta") == 0
        await redis.aclose()

    with_redis(redis_server, scenario)


class Restless:
    """Answers as a Redis whose flags are replaced all the time."""

    async def script(self, text: str, keys: Sequence[str], arguments: Sequence[str | int]) -> Any:
        if text == redis_flags.STATE:
            return [b"0", []]
        return [str(next(counter)).encode(), b"1", 0, 1, [], []]


def test_flags_that_never_stand_still_are_a_store_error() -> None:
    with pytest.raises(StoreError, match="the flags were replaced 3 times while they were read"):
        asyncio.run(RedisFlags(Restless(), "x", MOST).news(None))


def test_a_redis_that_is_not_there_is_a_store_error() -> None:
    async def scenario() -> None:
        store = redis_store(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.2)
        flags = RedisFlags(store, "x", MOST)
        for call in (flags.news(None), flags.change({"a": PAUSE})):
            with pytest.raises(StoreError, match="store unavailable"):
                await call
        await store.close()

    asyncio.run(scenario())
