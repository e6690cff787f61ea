"""From the streams to files: entries -> segments -> acknowledged -> tables.

    flush    entries become a segment (outcomes/segments.py); only then are they acknowledged
    tables   of spans of which something is new are written again; then progress.json says how far they go
    merge    of a span whose window is over one segment is left

A crash loses nothing: what was not acknowledged comes again and is known by its id, tables are made of segments again
from where progress.json says. Nothing is there twice: every file is a function of the entries, replaced as a whole.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from outcomes.durable import clear, write_bytes
from outcomes.errors import OutcomesError
from outcomes.open_spans import OpenSpans
from outcomes.segments import Segment, last_id, merge, segments, write_segment
from outcomes.streams import EVENTS, SERVED, STREAMS, Entry, Id, Streams
from outcomes.tables import REQUESTS, write_table
from outcomes.training import TrainingLog

log = logging.getLogger("adrank.outcomes")
PROGRESS = "progress.json"
READ = 1000
"""Entries in one answer of Redis."""
MOST = 20_000
"""Entries that wait to be written: then they are, whatever the time. Some 100 MB."""
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Timing:
    """When what is written."""

    flush_s: float = 5.0
    """Entries are on disk, and the tables show them, so long after they were taken, about."""
    span_ms: int = 600_000
    """Requests of one file. A whole number of them makes a day."""
    window_ms: int = 1_800_000
    """Impressions and clicks count for so long after their answer."""

    def __post_init__(self) -> None:
        if self.span_ms < 1 or DAY_MS % self.span_ms:
            raise OutcomesError(f"a span of {self.span_ms / 60_000:g} minutes does not divide a day")


class Collector:
    """One collector for one folder."""

    def __init__(self, root: Path, streams: Streams, timing: Timing, training: TrainingLog | None = None) -> None:
        """Takes up where the last one ended, however that was."""
        self._root, self._streams, self._timing, self._training = root, streams, timing, training
        self._token = str(root.resolve())
        clear(root)
        self._last = {name: last_id(root, name) for name in STREAMS}
        self._waiting: dict[str, list[Entry]] = {name: [] for name in STREAMS}
        self._unacknowledged: dict[str, list[Id]] = {name: [] for name in STREAMS}
        self._again: dict[str, str | None] = dict.fromkeys(STREAMS, "0")
        """Where the next entries are to be read that were taken before and not acknowledged; None: all were."""
        self._caught_up = dict.fromkeys(STREAMS, 0)
        self._flushed_at = monotonic()
        self._unfinished: set[int] = set()
        """Spans whose training log is not yet as it will be."""
        self._time_ms, self._spans = self._remembered()
        self._merged_ms = max(0, self._spans.first_open(self._time_ms) - DAY_MS)
        """Segments that begin before were merged; once more those of a day, as a crash may have cut a merge off."""

    def step(self) -> int:
        """Take what there is, some of it; how many entries. Flushes when it is time."""
        self._streams.hold(self._token)
        taken = sum(self._take(name) for name in STREAMS)
        if monotonic() - self._flushed_at >= self._timing.flush_s or any(
            len(e) >= MOST for e in self._waiting.values()
        ):
            self.flush()
        return taken

    def flush(self) -> None:
        """Everything that was taken is on disk, acknowledged, and in the tables."""
        for name, entries in self._waiting.items():
            if entries:
                segment = write_segment(self._root, name, entries)
                self._last[name] = segment.last
                self._unacknowledged[name] += [entry.id for entry in entries]
                self._add(name, segment)
                log.info("%d entries of %s up to %s", len(entries), name, segment.last)
                entries.clear()
        for name, ids in self._unacknowledged.items():
            self._streams.done(name, ids)
            ids.clear()
        self._write(min(self._time(name) for name in STREAMS))
        self._flushed_at = monotonic()

    def finish(self) -> None:
        """Before a graceful end: flush, and write the training log of spans that are not over yet, as they stand."""
        self.flush()
        self._write_training(sorted(self._unfinished))
        self._streams.release(self._token)

    def _take(self, name: str) -> int:
        entries: list[Entry] = []
        if (again := self._again[name]) is not None:
            entries = self._streams.read(name, again, READ)
            self._again[name] = str(entries[-1].id) if entries else None
        if not entries:
            now = self._streams.now_ms()
            entries = self._streams.read(name, ">", READ)
            if not entries:
                self._caught_up[name] = now
        known = [entry.id for entry in entries if entry.id <= self._last[name] or not entry.fields]
        self._streams.done(name, known)  # on disk since before a crash, or deleted
        fresh = [entry for entry in entries if entry.id > self._last[name] and entry.fields]
        self._waiting[name] += fresh
        return len(entries)

    def _time(self, name: str) -> int:
        """All entries of the stream before this time were taken and are on disk."""
        return max(self._caught_up[name], self._last[name].ms)

    def _add(self, name: str, segment: Segment) -> None:
        (self._spans.add_served if name == SERVED else self._spans.add_events)(segment.lines())

    def _write(self, time_ms: int) -> None:
        """Bring the tables up to date; the streams have come to `time_ms`."""
        self._time_ms = max(self._time_ms, time_ms)
        first = self._spans.first_open(self._time_ms)
        self._unfinished |= self._spans.changed
        for begin in sorted(self._spans.changed):
            requests, impressions, shadow = self._spans.tables(begin)
            write_table(self._root, "requests", begin, requests.select(*REQUESTS))
            write_table(self._root, "impressions", begin, impressions)
            if len(shadow):  # what it has never becomes less: no older file is to be replaced by none
                write_table(self._root, "shadow", begin, shadow)
        self._spans.changed.clear()
        over = sorted(begin for begin in self._unfinished if begin < first)
        self._write_training(over)
        self._unfinished -= set(over)
        self._spans.since(first)
        if first > self._merged_ms:
            for name in STREAMS:
                merge(self._root, name, self._merged_ms, first, self._timing.span_ms)
            self._merged_ms = first
        content = {name: str(each) for name, each in self._last.items()}
        progress = content | {"time_ms": self._time_ms, "span_ms": self._timing.span_ms}
        write_bytes(self._root / PROGRESS, json.dumps(progress).encode())

    def _write_training(self, begins: list[int]) -> None:
        if self._training is None or not begins:
            return
        features = self._spans.features()
        for begin in begins:
            self._training.write(begin, features, self._spans.tables(begin)[1])
        self._training.describe()

    def _remembered(self) -> tuple[int, OpenSpans]:
        """How far the tables go, and the spans that were open then, made of segments again."""
        spans = OpenSpans(self._timing.span_ms, self._timing.window_ms, self._training)
        path, time_ms = self._root / PROGRESS, 0
        if path.exists():
            progress = json.loads(path.read_text())
            time_ms = int(progress["time_ms"])
            if progress["span_ms"] != self._timing.span_ms:
                raise OutcomesError(
                    f"{self._root}: its files hold {progress['span_ms'] / 60_000:g} minutes each, not "
                    f"{self._timing.span_ms / 60_000:g}: use another folder"
                )
        first = spans.first_open(time_ms)
        spans.since(first)
        for name, add in ((SERVED, spans.add_served), (EVENTS, spans.add_events)):
            for segment in segments(self._root, name, max(0, first - self._timing.window_ms)):
                add(segment.lines())
        return time_ms, spans
