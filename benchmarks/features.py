"""What it costs to know a user: reading, unpacking and encoding a record of 50 events, with and without the cache.

The floor of a read is one GET and its answer over a bare socket of the same event loop, to the same Redis, in the same
rounds. What redis-py's own client takes for that GET stands beside it.
"""

import argparse
import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import uvloop
from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.report import Report, Table
from benchmarks.timing import WARM_UP, Times, interleaved, p50, p99, spread
from benchmarks.work import AGES, CATEGORIES, CITIES, HISTORY, work_schema
from bundle.encoding import Encoder
from bundle.folder import Bundle
from bundle.record import Event, UserRecord, pack, unpack
from bundle.schema import FIRST_KNOWN
from bundle.vocabulary import Vocabulary
from service.breaker import Breaker
from service.encode import encode_common, encode_found
from service.metrics import Metrics
from service.redis_store import RedisStore
from service.user_cache import Limits, StoredUser, UserCache
from service.user_features import UserFeatures, UserReader

USER = "362437069"
PREFIX = "adrank:user:"
START_S = 10.0
LONG_S = 3600.0
FLOOR, CLIENT, STORE = "GET over a bare socket: the floor", "GET by redis-py's client", "GET by our store"
COLD, CACHED = "read of a user, cache off", "read of a user, cached"
UNPACK, ENCODE, AGAIN = "unpack", "encode the user's side", "the same, kept from an earlier request"
FIGURES = {
    FLOOR: "floor",
    CLIENT: "client",
    STORE: "store",
    COLD: "redis",
    CACHED: "cached",
    UNPACK: "unpack",
    ENCODE: "encode",
    AGAIN: "encode_cached",
}
"""Row of the table -> name of its figures."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (default 5000, with --quick 500)")
    parser.add_argument("--ads", type=int, metavar="N", help="ads in the catalogue (default 10^6, with --quick 10^5)")


def run(arguments: argparse.Namespace) -> Report:
    """Measure. FileNotFoundError when there is no Redis server on this machine."""
    rounds = arguments.rounds or (500 if arguments.quick else 5000)
    ads = arguments.ads or (100_000 if arguments.quick else 1_000_000)
    packed = pack(make_record(ads))
    with redis_server() as port:
        times = uvloop.run(_reads(port, packed, rounds))
    times |= interleaved(_encoding(make_bundle(ads), packed), rounds)
    report = Report("features")
    report.tables.append(_table(times, f"A user with {HISTORY} events, {len(packed)} bytes; {ads:,} ads"))
    for name, key in FIGURES.items():
        report.figures[f"features.{key}_p50_ms"] = p50(times[name])
        report.figures[f"features.{key}_p99_ms"] = p99(times[name])
    report.figures["features.redis_over_floor"] = p50(times[COLD]) / p50(times[FLOOR])
    report.notes.append("Reads take turns in one event loop (uvloop), one at a time; Redis runs on the same machine.")
    return report


def make_record(ads: int, seed: int = 0) -> UserRecord:
    """A user of the standard work with 50 behaviours."""
    random = np.random.default_rng(seed)
    seen = random.integers(0, ads, HISTORY).tolist()
    clicks = tuple(Event("click", 1_650_812_741_436 + 7_919 * i, (ad,)) for i, ad in enumerate(seen))
    return UserRecord({"age": int(random.integers(AGES)), "city": int(random.integers(CITIES))}, clicks)


def make_bundle(ads: int, seed: int = 0) -> Bundle:
    """What encoding reads of a bundle of the standard work, in memory; ads have the ids 0, 1, ..."""
    schema = work_schema(ads)
    sizes = {field.vocabulary: field.size for side in (schema.user, schema.ad) for field in side.fields}
    vocabularies = {name: Vocabulary(np.arange(size - FIRST_KNOWN)) for name, size in sizes.items() if name is not None}
    items = np.minimum(np.arange(ads + FIRST_KNOWN), sizes["item"] - 1)
    categories = np.random.default_rng(seed).integers(FIRST_KNOWN, CATEGORIES + FIRST_KNOWN, ads + FIRST_KNOWN)
    fields = np.stack([items, categories], axis=1).astype(np.int32)
    encoded_by = {
        "id": "standard-work",
        "manifest": SimpleNamespace(features=schema),
        "encoder": Encoder(schema, vocabularies),
        "ads": SimpleNamespace(index=Vocabulary(np.arange(ads)), fields=fields),
    }
    return cast(Bundle, SimpleNamespace(**encoded_by))


@contextmanager
def redis_server() -> Iterator[int]:
    """The port of a Redis of its own, which keeps nothing. FileNotFoundError when there is none installed."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise FileNotFoundError("neither redis-server nor valkey-server is installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="adrank-redis-") as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait_for(server, port)
            yield port
        finally:
            server.terminate()
            server.wait(START_S)


def _wait_for(server: "subprocess.Popen[bytes]", port: int) -> None:
    until = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise ValueError(f"the Redis server does not listen on port {port}")


async def _reads(port: int, packed: bytes, rounds: int) -> dict[str, Times]:
    """Every way to read the user, in turns."""
    url = f"redis://127.0.0.1:{port}/0"
    store = RedisStore(
        url,
        prefix=PREFIX,
        timeout_s=0.03,
        write_timeout_s=1.0,
        pool_size=32,
        history_limit=1000,
        max_record_bytes=262_144,
    )
    await store.put([(USER, packed)])
    pool: Any = BlockingConnectionPool.from_url(url, protocol=2, timeout=0.03, socket_timeout=0.03)
    client: Any = Redis(connection_pool=pool)
    bare = await BareGet.connect(port, PREFIX + USER, len(packed))
    cold, cached = _reader(store, Limits()), _reader(store, Limits(10, 10**6, LONG_S, LONG_S, LONG_S))

    async def known(reader: UserReader) -> None:
        found = await reader.read(USER, 1.0)
        if not found.known:
            raise ValueError(f"the user was not read: {found.degraded}")

    work: dict[str, Callable[[], Awaitable[object]]] = {
        FLOOR: bare.get,
        CLIENT: lambda: client.get(PREFIX + USER),
        STORE: lambda: store.get(USER),
        COLD: lambda: known(cold),
        CACHED: lambda: known(cached),
    }
    try:
        return await _interleaved(work, rounds)
    finally:
        bare.close()
        for reader in (cold, cached):
            await reader.stop()
        await store.close()
        await client.aclose()
        await pool.disconnect()


def _reader(store: RedisStore, limits: Limits) -> UserReader:
    return UserReader(store, Breaker(5, 1.0), Metrics(), UserCache(limits), 0.05)


async def _interleaved(work: Mapping[str, Callable[[], Awaitable[object]]], rounds: int) -> dict[str, Times]:
    """benchmarks.timing.interleaved for coroutines."""
    for function in work.values():
        for _ in range(WARM_UP):
            await function()
    times = {name: np.empty(rounds) for name in work}
    names = list(work)
    for i in range(rounds):
        for name in names if i % 2 == 0 else reversed(names):
            started = perf_counter()
            await work[name]()
            times[name][i] = (perf_counter() - started) * 1e3
    return times


class BareGet(asyncio.Protocol):
    """The same GET again and again: nothing is parsed, the answer's length is known."""

    def __init__(self, key: str, size: int) -> None:
        self._command = b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key.encode())
        self._length = len(b"$%d\r\n" % size) + size + 2
        self._missing = 0
        self._answer: asyncio.Future[None] | None = None
        self._transport: Any = None

    @classmethod
    async def connect(cls, port: int, key: str, size: int) -> "BareGet":
        """Connected to the server on `port`, which holds `size` bytes under `key`."""
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: cls(key, size), "127.0.0.1", port)
        return made

    def connection_made(self, transport: Any) -> None:
        """See asyncio.Protocol."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._missing -= len(data)
        if self._missing == 0 and self._answer is not None:
            self._answer.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("Redis closed the connection"))

    async def get(self) -> None:
        """One round trip."""
        self._missing = self._length
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(self._command)
        await self._answer

    def close(self) -> None:
        """Disconnect."""
        self._transport.close()


def _encoding(bundle: Bundle, packed: bytes) -> dict[str, Callable[[], object]]:
    record, stored = unpack(packed), StoredUser(packed)
    found = UserFeatures(True, stored=stored, parsed=record)
    return {
        UNPACK: lambda: unpack(packed),
        ENCODE: lambda: encode_common(bundle, USER, record, None, {}),
        AGAIN: lambda: encode_found(bundle, USER, found, None, {}),
    }


def _table(times: Mapping[str, Times], title: str) -> Table:
    floor = p50(times[FLOOR])
    rows: list[tuple[str | int | float, ...]] = []
    for name in FIGURES:
        share = f"{p50(times[name]) / floor:.2f}" if name in (FLOOR, CLIENT, STORE, COLD, CACHED) else ""
        rows.append((name, p50(times[name]), p99(times[name]), spread(times[name]), share))
    return Table(title, ("what", "p50 ms", "p99 ms", "middle half", "÷ floor"), rows)
