"""How long after the last process is ready for another bundle all of them serve it: services over one Redis.

Several services, WORKERS processes each, share the desired state in a Redis. Each process has a client of its own that
asks for a ranking again and again and looks which bundle the answer names, since that is what callers see. The client
keeps its connection, which stays with the process that accepted it; /v1/bundles says which one that is. Meanwhile the
reports of the processes are read from Redis.

The time is never told too short. It begins when that look at the reports was sent which was the last to find a process
that was not ready, and ends when every process has answered by the new bundle, with the answers complete.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import numpy as np

from benchmarks.features import redis_server
from benchmarks.http.load import LoadError
from benchmarks.http.servers import start_ours
from benchmarks.report import Report, Table
from benchmarks.swap_driver import want, why_not
from service.redis_state import RedisState
from service.redis_store import RedisStore
from service.state_stores import StateStore

WORKERS = 2
"""Processes of each service."""
STATE_PREFIX = "swap-agreement:"
TTL_S = 5.0
"""For which reports count: the setting's default."""
JUDGED_SOON = ("--gate-idle-seconds", "0")
"""What the gate costs requests is not asked here: it need not wait for time that nobody else wants."""
LOOK_S = 0.005
"""Between two looks at the reports."""
EVERY_S = 0.02
"""Between an answer and the same client's next request: with an answer's own time the most that asking adds."""
REST_S = 1.0
"""After a swap: what is not needed any more is freed."""
START_S = 120.0
GIVEN_UP_S = 120.0
"""For one swap: the gate, and loading in each process."""
AT_ONCE = 8
"""Connections that are opened at the same time until each process has accepted one."""
BUNDLES = b"GET /v1/bundles HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Agreement:
    """One swap, in seconds of the monotonic clock."""

    asked: float
    """The state was changed."""
    unready: float
    """The last look at which a process was not ready was sent."""
    ready: float
    """The first look at which all were ready was answered: the last process said so between the two."""
    served: tuple[float, ...]
    """Of each process the first answer by the new bundle was complete."""

    @property
    def seconds(self) -> float:
        """From the last process being ready to all serving, at most."""
        return max(self.served) - self.unready

    @property
    def both_s(self) -> float:
        """For how long some were answered by the new bundle and others by the old one."""
        return max(self.served) - min(self.served)


class Client:
    """A kept connection to one process."""

    def __init__(self, process: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, address: tuple[str, int]) -> Self:
        """To whichever process of a service accepts it."""
        made = cls("", *await asyncio.open_connection(*address))
        made.process = (await made.ask(BUNDLES))["state"]["process"]
        return made

    async def ask(self, request: bytes) -> Any:
        """The JSON of a 200. LoadError for anything else."""
        self._writer.write(request)
        try:
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
            length = next(int(line.partition(":")[2]) for line in head if line.startswith("content-length:"))
            body = await self._reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            raise LoadError(f"{self.process or 'a process'} closed the connection with a request under way") from error
        if head[0].split()[1] != "200":
            raise LoadError(f"{self.process or 'a process'}: {head[0]}: {body[:300].decode(errors='replace')}")
        return json.loads(body)

    async def first_by(self, bundle_id: str, request: bytes) -> float:
        """When the first answer that names this bundle was complete."""
        while (await self.ask(request))["bundle_id"] != bundle_id:
            await asyncio.sleep(EVERY_S)
        return perf_counter()

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()


def measured(
    bundles: Sequence[Path], request: bytes, cores: Sequence[int], swaps: int, options: Sequence[str], scratch: Path
) -> Report:
    """`swaps` of these bundles, in turn, under a service on each of `cores`, with further `options`. See tell().

    FileNotFoundError without a Redis server on this machine; TimeoutError when a swap is not served.
    """
    with ExitStack() as stack:
        url = f"redis://127.0.0.1:{stack.enter_context(redis_server())}/0"
        shared = ["--workers", str(WORKERS), "--redis-url", url, "--redis-state-prefix", STATE_PREFIX]
        shared += ["--state-ttl-seconds", str(TTL_S), "--keep-bundles", "0", "--bundle-cache", str(scratch / "cache")]
        shared += [*JUDGED_SOON, *options]
        services = []
        for i, core in enumerate(cores):
            folder = scratch / f"service-{i}"
            folder.mkdir(parents=True)
            service = start_ours(bundles[0], folder, core, *shared)
            stack.callback(service.stop)
            services.append(service)
        for service in services:
            service.wait_until_it_answers(request, START_S)
        found = asyncio.run(_swaps(url, [each.address for each in services], bundles, request, swaps))
    return tell(found, len(cores))


def tell(swaps: Sequence[Agreement], services: int) -> Report:
    """`swap.agreement.seconds` from the last process being ready to all serving, median, and
    `swap.agreement.longest_seconds`; `swap.agreement.unsure_seconds`, how much too long one of them may be by looking
    at the reports, the largest; `swap.agreement.both_seconds`, for how long clients saw both bundles, the largest;
    `swap.agreement.ready_seconds` from a change to the last process being ready, median; `swap.agreement.swaps`,
    `swap.agreement.processes`; and a table."""
    processes = len(swaps[0].served)
    spans = {
        "from the change to the last one ready": [each.unready - each.asked for each in swaps],
        "from the last one ready to all serving": [each.seconds for each in swaps],
        "too long by looking, at most": [each.ready - each.unready for each in swaps],
        "clients saw both bundles": [each.both_s for each in swaps],
    }
    ready, agreed, unsure, both = spans.values()
    report = Report("swap")
    report.figures = {
        "swap.agreement.seconds": float(np.median(agreed)),
        "swap.agreement.longest_seconds": max(agreed),
        "swap.agreement.unsure_seconds": max(unsure),
        "swap.agreement.both_seconds": max(both),
        "swap.agreement.ready_seconds": float(np.median(ready)),
        "swap.agreement.swaps": len(swaps),
        "swap.agreement.processes": processes,
    }
    title = f"Agreement: {len(swaps)} swaps, {processes} processes of {services} services over one Redis, seconds"
    rows: list[tuple[str | int | float, ...]] = [
        (name, float(np.median(span)), max(span)) for name, span in spans.items()
    ]
    report.tables.append(Table(title, ("time", "median", "longest"), rows))
    return report


async def _swaps(
    url: str, addresses: Sequence[tuple[str, int]], bundles: Sequence[Path], request: bytes, count: int
) -> list[Agreement]:
    """First to the second bundle, then to the first, and so on."""
    async with AsyncExitStack() as stack:
        redis = RedisStore(
            url,
            prefix="",
            timeout_s=1.0,
            write_timeout_s=1.0,
            pool_size=2,
            history_limit=1,
            max_record_bytes=1,
        )
        stack.push_async_callback(redis.close)
        store = RedisState(redis, STATE_PREFIX, TTL_S)
        clients: list[Client] = []
        for address in addresses:
            found = await _one_each(address)
            for client in found:
                stack.push_async_callback(client.close)
            clients += found
        agreements = []
        for i in range(count):
            agreements.append(await _swap(store, clients, bundles[(i + 1) % len(bundles)].name, request))
            await asyncio.sleep(REST_S)
        return agreements


async def _one_each(address: tuple[str, int]) -> list[Client]:
    """A client for each process of a service. TimeoutError when one of them accepts none."""
    found: dict[str, Client] = {}
    end = perf_counter() + START_S
    while len(found) < WORKERS:
        if perf_counter() > end:
            raise TimeoutError(f"{len(found)} of {WORKERS} processes at port {address[1]} answered in {START_S:g} s")
        for client in await asyncio.gather(*(Client.connect(address) for _ in range(AT_ONCE))):
            if found.setdefault(client.process, client) is not client:
                await client.close()
    return list(found.values())


async def _swap(store: StateStore, clients: Sequence[Client], bundle_id: str, request: bytes) -> Agreement:
    """Have another bundle served. TimeoutError, with what the processes say, when it is not."""
    asked = perf_counter()
    version = await want(store, bundle_id)
    try:
        async with asyncio.timeout(GIVEN_UP_S):
            (unready, ready), served = await asyncio.gather(
                all_ready(store, version, len(clients), asked),
                asyncio.gather(*(client.first_by(bundle_id, request) for client in clients)),
            )
    except TimeoutError as error:
        raise TimeoutError(why_not(bundle_id, GIVEN_UP_S, await store.processes())) from error
    return Agreement(asked, unready, ready, tuple(served))


async def all_ready(store: StateStore, version: int, processes: int, asked: float) -> tuple[float, float]:
    """When the last look was sent that did not find all ready, and when the next one was answered."""
    unready = asked
    while True:
        sent = perf_counter()
        reports = await store.processes()
        if len(reports) == processes and all(each.prepared >= version for each in reports):
            return unready, perf_counter()
        unready = sent
        await asyncio.sleep(LOOK_S)
