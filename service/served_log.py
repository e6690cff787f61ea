"""Every rank answer as it was served, for `adrank outcomes`: kept in a bounded queue, written in the background.

Nothing is made of a request while it is answered: its body, the user's record and the answer are bytes that exist
already. One task writes them to a Redis Stream, some at a time. An entry has the fields

    head      JSON: what the answer does not say of itself, see `_head`
    asked     the request's body
    record    the user's packed record as it was read; absent for a user of whom nothing was known
    answer    the answer's body; absent for a request that failed

or is a set of flagged ads, `flags` with a JSON of `flags.json_of` and `digest`, its name: written before the first
answer that refers to it; or is `shadow`, JSON of what the shadow gave the ads of one answer (ShadowScores).
"""

import asyncio
import hashlib
import json
import logging
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bundle import bitmap
from bundle.manifest import MANIFEST
from control.state import Overrides
from service.ad_flags import FlagView
from service.errors import ServiceError, StoreError
from service.loaded import LoadedBundle
from service.metrics import Metrics
from service.problem import status_of
from service.scorer import runtime
from service.settings import Settings
from service.tasks import ended
from service.timing import RequestTiming
from service.user_cache import StoredUser

log = logging.getLogger("adrank.served")
BATCH = 64
"""Answers in one write, at most."""
SLICE = 8
"""Entries that are made in one turn of the event loop: 0.2 ms."""
BATCH_BYTES = 262_144
"""Bytes in one write, about: Redis takes a millisecond for them, in which it answers nobody else."""
PAUSE_S = 0.02
"""Between an answer and its write: several answers then share one."""
RETRY_S = 0.5
"""After a failed write."""
LAST_S = 3.0
MOST_FLAGGED = 10_000
"""Flagged ads that are logged; of more only their number."""
OVERHEAD = 500
"""Bytes of an entry besides its bodies."""


@dataclass(slots=True)
class Inputs:
    """What a rank request was answered from. Filled in as the request goes along."""

    live: LoadedBundle
    version: int
    """Of the desired state."""
    arms: Mapping[str, str]
    """Experiment -> arm that the hash dealt: what outcomes count for. Not those of allow lists, nor forced ones."""
    overrides: Overrides
    """The control's, with those of the arms."""
    stored: StoredUser | None = None
    flags: FlagView | None = None


@dataclass(slots=True)
class Entry:
    """One answer that waits to be written."""

    request_id: str
    user_id: str
    time_ms: int
    status: int
    total_ms: float
    asked: bytes
    answer: bytes
    degraded: bool
    inputs: Inputs

    @property
    def bytes(self) -> int:
        """What it takes in memory and in Redis, about."""
        record = 0 if self.inputs.stored is None else len(self.inputs.stored.packed)
        return OVERHEAD + len(self.asked) + len(self.answer) + record


@dataclass(frozen=True, slots=True)
class ShadowScores:
    """What the shadow's bundle gave the ads of one answer, as far as it knows them."""

    bundle_id: str
    """Of the shadow."""
    ads: list[int | str]
    pctr: list[float | None]
    """None where it was no finite number."""


@dataclass(frozen=True, slots=True)
class ShadowEntry:
    """The scores of one answer by the shadow, that wait to be written."""

    body: bytes

    @property
    def bytes(self) -> int:
        """What it takes in memory and in Redis, about."""
        return OVERHEAD + len(self.body)


class EntryLog(Protocol):
    """Where entries go: RedisStore."""

    async def log(self, entries: Sequence[Sequence[str | bytes]]) -> int:
        """Add entries, each as fields and values in turn; how many old ones gave way. StoreError when that fails."""


class ServedLog:
    """The queue and the task that empties it. For one event loop."""

    def __init__(self, store: EntryLog | None, metrics: Metrics, settings: Settings, last_s: float = LAST_S) -> None:
        """`store` None: nothing is logged. At a graceful stop the queue is written for `last_s` at most."""
        self._last_s = last_s
        self._store = store
        self._metrics = metrics
        self._limit = settings.log_queue_bytes
        self._runtime = {"provider": settings.provider, "threads": settings.threads} | runtime()
        self._queue: deque[Entry | ShadowEntry] = deque()
        self._bytes = 0
        self._flags = FlagSets()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._dropping = False

    def add(self, request_id: str, user_id: str, asked: bytes, answer: bytes, timing: RequestTiming) -> None:
        """An answer was made. Takes microseconds."""
        self._add(request_id, user_id, asked, answer, timing, 200)

    def failed(self, request_id: str, user_id: str, asked: bytes, timing: RequestTiming, error: Exception) -> None:
        """A request that a bundle was chosen for failed. One that was refused as wrong is none."""
        self._add(
            request_id, user_id, asked, b"", timing, status_of(error)[0] if isinstance(error, ServiceError) else 500
        )

    def _add(
        self, request_id: str, user_id: str, asked: bytes, answer: bytes, timing: RequestTiming, status: int
    ) -> None:
        if self._store is None or timing.inputs is None:
            return
        now = int(time.time() * 1e3)
        ms, degraded = timing.total_ms, bool(timing.degraded)
        self._put(Entry(request_id, user_id, now - int(ms), status, ms, asked, answer, degraded, timing.inputs))

    def shadowed(self, request_id: str, user_id: str, scores: ShadowScores) -> None:
        """The shadow scored the ads of an answer. As bounded, and dropped and counted, as answers are."""
        if self._store is None:
            return
        said = {"format": 1, "request_id": request_id, "user_id": user_id, "bundle_id": scores.bundle_id}
        body = json.dumps(said | {"ads": scores.ads, "pctr": scores.pctr}, separators=(",", ":"))
        self._put(ShadowEntry(body.encode()))

    def _put(self, entry: Entry | ShadowEntry) -> None:
        if self._bytes + entry.bytes > self._limit:
            if not self._dropping:
                log.warning("the queue of the served log is full (%d bytes): answers are not logged", self._bytes)
            self._dropping = True
            self._count("dropped", [entry])
            return
        self._bytes += entry.bytes
        self._queue.append(entry)
        self._wake.set()

    def _count(self, outcome: str, entries: Collection[Entry | ShadowEntry]) -> None:
        answers = sum(isinstance(each, Entry) for each in entries)
        self._metrics.served_log(outcome, answers)
        self._metrics.shadow_log(outcome, len(entries) - answers)

    def start(self) -> None:
        """Write from now on."""
        if self._store is not None:
            self._task = asyncio.create_task(self._run(self._store))

    async def stop(self) -> None:
        """Write what waits, as long as there is time; the rest counts as dropped."""
        if self._task is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self._last_s):
                while self._queue:
                    await asyncio.sleep(PAUSE_S)
        await ended(self._task)
        if self._queue:
            log.warning("%d answers were not logged before the stop", len(self._queue))
            self._count("dropped", self._queue)

    async def _run(self, store: EntryLog) -> None:
        failing = False
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(PAUSE_S)
            while self._queue:
                batch = self._batch()
                try:
                    await self._write(store, batch)
                except StoreError as error:  # the batch stays first in the queue
                    if not failing:
                        log.warning("answers cannot be logged, trying again: %s", error)
                    failing = True
                    await asyncio.sleep(RETRY_S)
                    continue
                except Exception:  # an entry that cannot be written must not stop the log for ever
                    log.exception("%d answers are not logged: unexpected error", len(batch))
                    self._count("dropped", batch)
                else:
                    failing = self._dropping = False
                    self._count("logged", batch)
                for entry in batch:
                    self._queue.popleft()
                    self._bytes -= entry.bytes

    def _batch(self) -> list[Entry | ShadowEntry]:
        found: list[Entry | ShadowEntry] = []
        size = 0
        for entry in self._queue:
            size += entry.bytes
            if found and (len(found) == BATCH or size > BATCH_BYTES):
                break
            found.append(entry)
        return found

    async def _write(self, store: EntryLog, batch: Sequence[Entry | ShadowEntry]) -> None:
        entries: list[list[str | bytes]] = []
        named: list[str] = []
        for i, entry in enumerate(batch):
            if i % SLICE == SLICE - 1:
                await asyncio.sleep(0)  # requests that wait for the event loop go first
            if isinstance(entry, ShadowEntry):
                entries.append(["shadow", entry.body])
                continue
            flags = await self._flags.of(entry.inputs.flags)
            if flags is not None and flags.body is not None and flags.name not in (*self._flags.written, *named):
                entries.append(["digest", flags.name, "flags", flags.body])
                named.append(flags.name)
            entries.append(self._fields(entry, None if flags is None else flags.name))
        self._metrics.log_trimmed("served", await store.log(entries))
        self._flags.written.extend(named)

    def _fields(self, entry: Entry, flags: str | None) -> list[str | bytes]:
        fields: list[str | bytes] = ["head", json.dumps(self._head(entry, flags)), "asked", entry.asked]
        if entry.inputs.stored is not None:
            fields += ["record", entry.inputs.stored.packed]
        return fields + (["answer", entry.answer] if entry.answer else [])

    def _head(self, entry: Entry, flags: str | None) -> dict[str, Any]:
        """What is to be known of an answer besides itself: for the tables of outcomes, and for `adrank replay`."""
        inputs, sizes = entry.inputs, entry.inputs.live.sizes
        return {
            "format": 1,
            "request_id": entry.request_id,
            "user_id": entry.user_id,
            "time_ms": entry.time_ms,
            "status": entry.status,
            "total_ms": round(entry.total_ms, 3),
            "degraded": entry.degraded,
            "version": inputs.version,
            "arms": dict(inputs.arms),
            "bundle_id": inputs.live.id,
            "manifest": manifest_digest(inputs.live.bundle.folder),
            "overrides": inputs.overrides.model_dump(exclude_none=True),
            "sizes": [sizes.retrieval, sizes.qscore, sizes.prerank, sizes.answer],
            "flags": flags,
            "runtime": self._runtime,
            "sums": {
                "asked": digest(entry.asked),
                "record": None if inputs.stored is None else digest(inputs.stored.packed),
            },
        }


@dataclass(frozen=True, slots=True)
class FlagSet:
    """The flagged ads of one view."""

    name: str
    """Hash of the body; for too many ads, how many they are."""
    body: bytes | None


class FlagSets:
    """The flagged ads of the last views, and which of them Redis has."""

    def __init__(self) -> None:
        self._known: deque[tuple[FlagView, FlagSet | None]] = deque(maxlen=4)
        self.written: deque[str] = deque(maxlen=64)
        """Names; a set that falls out is written once more."""

    async def of(self, view: FlagView | None) -> FlagSet | None:
        """The flagged ads of a view; None: no ad has a flag."""
        if view is None or not view.passed:
            return None
        for known, found in self._known:
            if known is view:
                return found
        made = await asyncio.to_thread(flag_set, view)  # 5 ms for 10^7 ads
        self._known.append((view, made))
        return made


def flag_set(view: FlagView) -> FlagSet:
    """The ads of the view's catalogue that have flags, by flag, in the order of their rows."""
    total = sum(bitmap.count(each) for each in view.flagged.values())
    if total > MOST_FLAGGED:
        return FlagSet(f"{total} flags, more than the {MOST_FLAGGED} that are logged", None)
    index = view.bundle.ads.index
    flagged = {
        name: [index.value_of(row) for row in np.flatnonzero(bitmap.unpack(each, index.size)).tolist()]
        for name, each in view.flagged.items()
    }
    body = json.dumps(flagged, separators=(",", ":")).encode()
    return FlagSet(digest(body), body)


def digest(value: bytes) -> str:
    """Tells inputs apart."""
    return hashlib.sha256(value).hexdigest()[:32]


@lru_cache(maxsize=16)
def manifest_digest(folder: Path) -> str:
    """Hash of a bundle's manifest, which has the hashes of all its files. A bundle's folder is never changed."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
