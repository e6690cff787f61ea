"""Live flags of ads (paused, budget exhausted): changed over HTTP, followed from the store, held as bitmaps.

Every worker process asks the store each second what changed. A request reads one reference: a FlagView of its bundle,
made anew when flags or bundle change.
"""

import asyncio
import heapq
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from time import monotonic

import numpy as np
import numpy.typing as npt

from bundle import bitmap
from bundle.bitmap import Bitmap
from bundle.folder import Bundle
from bundle.schema import FIRST_KNOWN, UNKNOWN
from bundle.vocabulary import INT64, Vocabulary
from service.eligibility import Passed
from service.errors import StoreError
from service.flag_stores import FLAGS, FlagStore, Mark, News
from service.metrics import Metrics
from service.tasks import ended

log = logging.getLogger("adrank.flags")


@dataclass(frozen=True, slots=True)
class FlagView:
    """The flags against one bundle's catalogue."""

    bundle: Bundle
    flagged: dict[str, Bitmap]
    """Flag -> the ads that have it."""
    passed: Passed
    """For each flag that some ad has, the ads that do not have it: the conditions of eligibility."""
    unknown: int
    """Ads with flags that are not in this catalogue. A later one may know them."""

    @property
    def counts(self) -> dict[str, int]:
        """How many ads have each flag, and how many with flags are not in the catalogue."""
        return {name: bitmap.count(each) for name, each in self.flagged.items()} | {"unknown": self.unknown}


class AdFlags:
    """Follows the store. `of` is for any thread, all else for the event loop."""

    def __init__(self, store: FlagStore, metrics: Metrics, poll_s: float, stale_s: float) -> None:
        """Asks every `poll_s`; after `stale_s` without an answer requests are told that the flags are stale."""
        self.store = store
        self._metrics = metrics
        self._poll_s, self._stale_s = poll_s, stale_s
        self._mark: Mark | None = None
        self._flags: dict[str, int] = {}
        self._views: tuple[FlagView, ...] = ()
        self._changing = Lock()
        self._reading = asyncio.Lock()
        self._read_at = monotonic()
        self._was_read = self._failed = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the flags once, so that no request is answered before, and go on following them."""
        await self.refresh()
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Follow no longer."""
        await ended(self._task)

    async def refresh(self) -> None:
        """Ask the store once. When it fails, the flags last known stay in force."""
        async with self._reading:
            try:
                news = await self.store.news(self._mark)
                if news.flags or news.whole:  # 10^6 flags against a catalogue take a second: not on the event loop
                    await asyncio.to_thread(self._take, news)
            except StoreError as error:
                if not self._failed:
                    log.warning("flags of ads cannot be read, those last known stay in force: %s", error)
                self._failed = True
            else:
                if self._failed:
                    log.warning("flags of ads are read again after %.1f s", self.age_s)
                self._read_at, self._was_read, self._failed = monotonic(), True, False
                self._mark = news.mark if len(self._flags) == news.size else None
        self._metrics.flags_age(self.age_s)

    def of(self, bundle: Bundle) -> FlagView:
        """The flags against `bundle`: made once for each bundle, and brought up to date with every change."""
        if (known := _find(self._views, bundle)) is not None:
            return known
        with self._changing:
            if (known := _find(self._views, bundle)) is not None:
                return known
            made = new_view(bundle, self._flags)
            self._views = (*self._views, made)
            self._show()
        return made

    def keep(self, live: Bundle, bundles: Iterable[Bundle]) -> None:
        """From now on the flags against these bundles alone are kept; metrics show those against the live one."""
        wanted = {id(bundle) for bundle in bundles}
        views = sorted((each for each in self._views if id(each.bundle) in wanted), key=lambda v: v.bundle is not live)
        if [id(each) for each in views] == [id(each) for each in self._views]:
            return
        if self._changing.acquire(blocking=False):  # it may be held for a second, and the next call will do
            try:
                kept = [each for each in self._views if id(each.bundle) in wanted]
                self._views = tuple(sorted(kept, key=lambda view: view.bundle is not live))
                self._show()
            finally:
                self._changing.release()

    @property
    def age_s(self) -> float:
        """Seconds since the flags were last read from the store; since the start when they never were."""
        return monotonic() - self._read_at

    @property
    def degraded(self) -> str | None:
        """What an answer has to say of the flags."""
        if not self._was_read:
            return "ad_flags: never read"
        return "ad_flags: stale" if self.age_s > self._stale_s else None

    def listed(self, after: str, limit: int) -> dict[str, int]:
        """The first `limit` ads with flags whose ids come after `after`, in the order of their ids as text."""
        with self._changing:
            first = heapq.nsmallest(limit, (ad_id for ad_id in self._flags if ad_id > after))
            return {ad_id: self._flags[ad_id] for ad_id in first}

    def flags_of(self, ad_ids: Iterable[str]) -> dict[str, int]:
        """The flags of these ads, 0 for none."""
        return {ad_id: self._flags.get(ad_id, 0) for ad_id in ad_ids}

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.refresh()
            except Exception:  # or nobody would follow any more
                log.exception("flags of ads: unexpected error")

    def _take(self, news: News) -> None:
        """Bring flags and views up to date."""
        with self._changing:
            if news.whole:
                self._flags = {ad_id: flags for ad_id, flags in news.flags.items() if flags}
                self._views = tuple(new_view(view.bundle, self._flags) for view in self._views)
            else:
                for ad_id, flags in news.flags.items():
                    if flags:
                        self._flags[ad_id] = flags
                    else:
                        self._flags.pop(ad_id, None)
                self._views = tuple(changed_view(view, news.flags, len(self._flags)) for view in self._views)
            self._show()

    def _show(self) -> None:
        for view in self._views[:1]:
            self._metrics.flagged(view.counts)


def canonical(index: Vocabulary, ad_id: int | str) -> str:
    """The text under which an ad's flags are kept: 7, "7" and "07" are one ad where ids are integers."""
    if index.is_integer and isinstance(ad_id, str):
        with suppress(ValueError):
            return str(int(ad_id))
    return str(ad_id)


def rows_of_texts(index: Vocabulary, ad_ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Catalogue rows int64[n] of canonical ids, row 1 for unknown ones; 10^6 of 10^7 ads take about a second."""
    rows = np.full(len(ad_ids), UNKNOWN, dtype=np.int64)
    if index.is_integer:
        numbers = {i: number for i, each in enumerate(ad_ids) if (number := _number(each)) is not None}
        found = index.ids_of(np.fromiter(numbers.values(), dtype=np.int64, count=len(numbers)))
        rows[np.fromiter(numbers, dtype=np.int64, count=len(numbers))] = found
        return rows
    # Longer ones than the catalogue has would make the search copy all of its ids to their width.
    width = index.values.dtype.itemsize
    texts = {i: text for i, each in enumerate(ad_ids) if len(text := each.encode()) <= width and text[-1:] != b"\0"}
    found = index.ids_of(np.array(list(texts.values()), dtype=f"S{width}"))
    rows[np.fromiter(texts, dtype=np.int64, count=len(texts))] = found
    return rows


def _find(views: Iterable[FlagView], bundle: Bundle) -> FlagView | None:
    return next((view for view in views if view.bundle is bundle), None)


def _number(text: str) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if INT64.min <= number <= INT64.max else None


def new_view(bundle: Bundle, flags: dict[str, int]) -> FlagView:
    """The flags of ads by canonical id, against a bundle."""
    rows = rows_of_texts(bundle.ads.index, list(flags))
    masks = np.fromiter(flags.values(), dtype=np.int64, count=len(flags))
    known = rows >= FIRST_KNOWN
    size = bundle.ads.index.size
    return _finished(
        bundle, {name: bitmap.of_rows(rows[known & (masks & bit > 0)], size) for name, bit in FLAGS.items()}, len(flags)
    )


def changed_view(view: FlagView, changes: dict[str, int], total: int) -> FlagView:
    """The view after some ads' flags changed; `total` ads have flags now."""
    rows = rows_of_texts(view.bundle.ads.index, list(changes))
    masks = np.fromiter(changes.values(), dtype=np.int64, count=len(changes))
    known = rows >= FIRST_KNOWN
    rows, masks = rows[known], masks[known]
    bits = np.left_shift(1, rows & 7).astype(np.uint8)
    flagged = {}
    for name, bit in FLAGS.items():
        after = view.flagged[name].copy()
        on = masks & bit > 0
        np.bitwise_or.at(after, rows[on] >> 3, bits[on])
        np.bitwise_and.at(after, rows[~on] >> 3, ~bits[~on])
        flagged[name] = after
    return _finished(view.bundle, flagged, total)


def _finished(bundle: Bundle, flagged: dict[str, Bitmap], total: int) -> FlagView:
    size = bundle.ads.index.size
    passed = tuple((name, bitmap.without(each, size)) for name, each in flagged.items() if each.any())
    either = np.bitwise_or.reduce(list(flagged.values()))
    return FlagView(bundle, flagged, passed, total - bitmap.count(either))
