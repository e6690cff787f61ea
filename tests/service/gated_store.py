"""A store whose every step is taken when a test says so: when a read is answered, when a change is told."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bundle.record import UserRecord, pack, unpack
from service.breaker import Breaker
from service.errors import StoreError
from service.features import Appended
from service.metrics import Metrics
from service.user_cache import Limits, UserCache
from service.user_features import UserFeatures, UserReader

T = TypeVar("T")
LONG_S = 1000.0


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def record_of(version: int) -> bytes:
    """A record that says how often its user was written."""
    return pack(UserRecord({"version": version}))


def version_of(found: UserFeatures) -> int:
    """How often the user was written before the record was read; 0 for an unknown one."""
    if not found.known:
        return 0
    assert found.stored is not None
    assert unpack(found.stored.packed) == found.record
    version = found.record.profile["version"]
    assert isinstance(version, int)
    return version


@dataclass(eq=False)
class Call:
    """A read or an append under way."""

    user_id: str
    answer: asyncio.Future[int]
    version: int | None = None
    """What the server saw or wrote, once it has run the command."""


@dataclass(eq=False)
class GatedStore:
    """Users with a version each, counted up by every write. Commands, answers and news wait for the test."""

    versions: dict[str, int] = field(default_factory=dict)
    reads: list[Call] = field(default_factory=list)
    appends: list[Call] = field(default_factory=list)
    news: list[tuple[str, int]] = field(default_factory=list)
    """Changes the server has told of and the follower has not received."""
    begun: int = 0
    """How many reads there were."""
    up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: the next attempt to follow succeeds."""
    told: Callable[[], None] | None = None
    _changed: Callable[[Iterable[str]], None] | None = None
    _lost: asyncio.Future[None] | None = None

    def write(self, user_id: str) -> int:
        """The server writes a user, and tells whoever follows."""
        self.versions[user_id] = self.versions.get(user_id, 0) + 1
        if self.told is not None:
            self.news.append((user_id, self.versions[user_id]))
        return self.versions[user_id]

    def run(self, call: Call) -> None:
        """The server runs a command; its answer is then under way."""
        call.version = self.write(call.user_id) if call in self.appends else self.versions.get(call.user_id, 0)

    def answer(self, call: Call) -> None:
        """The answer arrives."""
        assert call.version is not None
        (self.appends if call in self.appends else self.reads).remove(call)
        call.answer.set_result(call.version)

    def fail(self, call: Call, why: str = "store unavailable") -> None:
        """An error arrives instead."""
        (self.appends if call in self.appends else self.reads).remove(call)
        call.answer.set_exception(StoreError(why))

    def deliver(self) -> tuple[str, int]:
        """The oldest news arrives."""
        user_id, version = self.news.pop(0)
        assert self._changed is not None
        self._changed([user_id])
        return user_id, version

    def lose(self) -> None:
        """The connection that news come over breaks, and those under way are lost."""
        assert self._lost is not None
        self.up.clear()
        self.news.clear()
        self.told = None
        self._lost.set_exception(StoreError("connection lost"))

    async def get(self, user_id: str) -> bytes | None:
        self.begun += 1
        call = Call(user_id, asyncio.get_running_loop().create_future())
        self.reads.append(call)
        version = await call.answer
        return record_of(version) if version else None

    async def append(self, events: Mapping[str, bytes], line: bytes | None = None) -> Appended:
        (user_id,) = events
        call = Call(user_id, asyncio.get_running_loop().create_future())
        self.appends.append(call)
        await call.answer
        return Appended()

    async def follow(self, told: Callable[[], None], changed: Callable[[Iterable[str]], None]) -> None:
        await self.up.wait()
        self._lost = asyncio.get_running_loop().create_future()
        self.told, self._changed = told, changed
        told()
        await self._lost

    async def ping(self) -> None:
        """Always answers."""

    async def close(self) -> None:
        """Nothing to let go."""


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(12):
        await asyncio.sleep(0)


class World:
    """A reader over a gated store, in a loop of its own."""

    def __init__(self, **limits: float) -> None:
        values = {"users": 10, "bytes": 10**6, "told_s": 60.0, "untold_s": 1.0, "stale_s": 300.0} | limits
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.store = GatedStore()
        self.cache = UserCache(Limits(**values), self.clock)  # type: ignore[arg-type]
        self.metrics = Metrics()
        self.reader = UserReader(self.store, Breaker(10**6, 1.0), self.metrics, self.cache, LONG_S)
        self.run(self._start())

    async def _start(self) -> None:
        self.reader.start()
        await settle()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives."""
        return self.loop.run_until_complete(work)

    def read(self, user_id: str) -> asyncio.Task[UserFeatures]:
        """A request that begins to read."""
        task = self.loop.create_task(self.reader.read(user_id, 2 * LONG_S))
        self.run(settle())
        return task

    def answer(self, call: Call) -> None:
        """The server runs a read and its answer arrives."""
        self.store.run(call)
        self.store.answer(call)
        self.run(settle())

    def found(self, user_id: str) -> int:
        """The version that a read gives that begins now and meets no obstacle."""
        task = self.read(user_id)
        if not task.done():
            self.answer(self.store.reads[-1])
        return version_of(task.result())

    def begin_telling(self) -> None:
        """The store tells of changes from now on."""
        self.store.up.set()
        self.run(settle())
        assert self.store.told is not None

    def close(self) -> None:
        """End all that runs."""
        self.run(self.reader.stop())
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.run(settle())
        self.loop.close()
