"""The files are a function of the entries: however often, and wherever, collectors were cut off on the way."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bundle.record import Event, UserRecord, pack
from outcomes.collector import Collector, Timing
from outcomes.description import read_description
from outcomes.streams import Id, Streams
from outcomes.training import TrainingLog
from tests.outcomes.feeding import NOON, PREFIX, Feed, event, raw_ids
from tests.outcomes.test_training import SHOP, make

MINUTE = 60_000
TIMING = Timing(flush_s=1e9, span_ms=10 * MINUTE, window_ms=15 * MINUTE)
ADS = (101, 102)
Entry = tuple[int, Callable[[Feed], None]]


def day(seed: int) -> list[Entry]:
    """Two hours of answers and events, some of which come early, late, twice, or for nobody."""
    draw = random.Random(seed)
    found: list[Entry] = []

    def answer(at: int, name: str) -> None:
        record = pack(UserRecord({"city": "Oslo"}, (Event("click", at, (draw.choice(ADS),)),)))
        ads = draw.sample(ADS, 2)
        found.append((at, lambda feed: feed.answer(at, name, ads, user=name[:2], record=record)))

    def happened(at: int, kind: str, name: str, ad: int) -> None:
        found.append((at, lambda feed: feed.events(at, event(kind, name, ad, user=name[:2]))))

    def shadow(at: int, name: str, pctr: float) -> None:
        found.append((at, lambda feed: feed.shadow(at, name, ADS, [pctr, 0.5], user=name[:2])))

    for i in range(150):
        at, name = NOON + i * 47_000 + draw.randrange(20_000), f"u{i % 7}-{i}"
        answer(at, name)
        if draw.random() < 0.1:
            answer(at + draw.randrange(1, 30_000), name)
        for _ in range(draw.choice((0, 1, 1, 2))):
            shadow(at + draw.randrange(-12 * MINUTE, 18 * MINUTE), name, draw.random())
        for ad in ADS:
            if draw.random() < 0.8:
                happened(at + draw.randrange(-12 * MINUTE, 18 * MINUTE), "impression", name, ad)
            if draw.random() < 0.4:
                happened(at + draw.randrange(-12 * MINUTE, 18 * MINUTE), "click", name, ad)
    return sorted(found, key=lambda each: each[0])


class CutError(BaseException):
    """The process ends here."""


class CutStreams(Streams):
    """Ends the process at the first acknowledgement after `left` others."""

    left = 0

    def done(self, stream: str, ids: Sequence[Id]) -> None:
        if ids and not self.left:
            raise CutError
        self.left -= bool(ids)
        super().done(stream, ids)


def collector(feed: Feed, out: Path, dataset: Path, streams: Streams | None = None) -> Collector:
    return Collector(out, streams or feed.streams(), TIMING, TrainingLog(out, read_description(dataset)))


def drain(collector: Collector) -> None:
    while collector.step():
        pass


def files(out: Path) -> dict[str, list[Any]]:
    paths = [path for name in ("requests", "impressions", "shadow", "log") for path in (out / name).rglob("*.parquet")]
    return {str(path.relative_to(out)): pl.read_parquet(path, hive_partitioning=False).rows() for path in paths}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cut_off_anywhere_the_files_are_the_same(feed: Feed, tmp_path: Path, seed: int) -> None:
    dataset = make(tmp_path / "shop", SHOP)
    once, often = tmp_path / "once", tmp_path / "often"
    for _, write in day(seed):
        write(feed)
    whole = collector(feed, once, dataset)
    drain(whole)
    whole.finish()

    feed.forget()
    draw, entries = random.Random(seed), day(seed)
    while entries:
        count = draw.randrange(1, 60)
        for _, write in entries[:count]:
            write(feed)
        entries = entries[count:]
        how = draw.randrange(4)
        if how == 0:  # taken, and nothing written
            drain(collector(feed, often, dataset))
        elif how == 1:
            working = collector(feed, often, dataset)
            drain(working)
            working.flush()
        elif how == 2:
            streams = CutStreams(feed.url, PREFIX)
            streams.left = draw.randrange(2)
            working = collector(feed, often, dataset, streams)
            try:
                drain(working)
                working.flush()
            except CutError:
                pass
        else:
            working = collector(feed, often, dataset)
            drain(working)
            working.finish()
    last = collector(feed, often, dataset)
    drain(last)
    last.finish()

    assert raw_ids(often, "served") == raw_ids(once, "served")
    assert raw_ids(often, "events") == raw_ids(once, "events")
    expected = files(once)
    assert files(often) == expected
    assert len([name for name in expected if name.startswith("log/")]) >= 10
    assert len([name for name in expected if name.startswith("shadow/")]) >= 10
    assert any(row[9] for name, rows in expected.items() if name.startswith("impressions/") for row in rows)
