"""What was taken from the streams, as it was: files of JSON lines, each named by its first and last entry.

    raw/served/2026-11-23/1763884800000-0_1763884805012-3.jsonl.gz
        {"id": "1763884800000-0", "head": {...}, "asked": "...", "record": "..." or null, "answer": {...} or null}
        {"id": "1763884800040-0", "shadow": {...}}      what the shadow's bundle gave the ads of an answer
    raw/events/...
        {"id": "1763884800123-0", "events": [{"user_id": ..., "kind": ..., "ad_id": ..., "request_id": ...}, ...]}
    flags/DIGEST.json
        {"paused": [ad ids], "budget_exhausted": [ad ids]}

A segment appears under its name when it is whole, and is never changed. Its name is what makes "once" exact: entries
are taken in the order of their ids, so one that is not after the last name is on disk already. All other files are made
of segments and can be made again.
"""

import gzip
import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from outcomes.durable import write_bytes
from outcomes.streams import SERVED, Entry, Id

log = logging.getLogger("adrank.outcomes")
SUFFIX = ".jsonl.gz"
NOTHING = Id(0, 0)
FORMAT = 1
"""Of the entries that service/served_log.py writes."""


class Segment(NamedTuple):
    """One file."""

    first: Id
    last: Id
    path: Path

    def lines(self) -> Iterator[dict[str, Any]]:
        """Its entries, in order."""
        with gzip.open(self.path, "rb") as file:
            for line in file:
                yield json.loads(line)


def day_of(ms: int) -> str:
    """The day of a time in Unix milliseconds, UTC: 2026-11-23."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def segments(root: Path, stream: str, from_ms: int = 0) -> list[Segment]:
    """Those that may have entries of `from_ms` or later, in order. Of one that was merged into another only that."""
    day = day_of(max(0, from_ms - 86_400_000))  # a segment stands under the day of its first entry
    folders = [folder for folder in (root / "raw" / stream).glob("*") if folder.name >= day]
    return [each for each in _whole([s for folder in folders for s in _within(folder)]) if each.last.ms >= from_ms]


def last_id(root: Path, stream: str) -> Id:
    """The last entry that is on disk."""
    for folder in sorted((root / "raw" / stream).glob("*"), reverse=True):
        if found := _within(folder):
            return max(each.last for each in found)
    return NOTHING


def merge(root: Path, stream: str, from_ms: int, to_ms: int, span_ms: int) -> None:
    """Make one segment of those that begin in the same span, of all that begin in [from_ms, to_ms): a collector that
    writes one every 5 seconds would leave 17,280 a day. A crash leaves both the parts and the whole, or the parts."""
    by_span: dict[tuple[Path, int], list[Segment]] = {}
    for folder in (root / "raw" / stream).glob("*"):
        if day_of(from_ms) <= folder.name <= day_of(to_ms):
            for each in _within(folder):
                if from_ms <= each.first.ms < to_ms:
                    by_span.setdefault((folder, each.first.ms // span_ms), []).append(each)
    for (folder, _), found in by_span.items():
        parts = _whole(found)
        path = folder / f"{parts[0].first}_{parts[-1].last}{SUFFIX}"
        if len(parts) > 1:  # gzip files one after the other are one gzip file
            write_bytes(path, b"".join(part.path.read_bytes() for part in parts))
        for each in found:
            if each.path != path:
                each.path.unlink()


def _within(folder: Path) -> list[Segment]:
    found = []
    for path in folder.glob(f"[0-9]*{SUFFIX}"):
        first, _, last = path.name.removesuffix(SUFFIX).partition("_")
        found.append(Segment(Id.of(first), Id.of(last), path))
    return found


def _whole(found: Sequence[Segment]) -> list[Segment]:
    """In order, without those that lie within another: what a merge leaves when it is cut off."""
    kept: list[Segment] = []
    for each in sorted(found, key=lambda each: (each.first, (-each.last.ms, -each.last.number))):
        if not kept or each.last > kept[-1].last:
            kept.append(each)
    return kept


def write_segment(root: Path, stream: str, entries: Sequence[Entry]) -> Segment:
    """Put entries, in the order of their ids, on disk. Flags go into files of their own; what is not ours is left out
    with a word in the log."""
    lines = []
    for entry in entries:
        if b"flags" in entry.fields and stream == SERVED:
            write_bytes(root / "flags" / f"{entry.fields[b'digest'].decode()}.json", entry.fields[b"flags"])
        try:
            lines.append((_served if stream == SERVED else _events)(entry))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            log.warning("entry %s of the stream of %s is not ours and is left out: %r", entry.id, stream, error)
    first, last = entries[0].id, entries[-1].id
    path = root / "raw" / stream / day_of(first.ms) / f"{first}_{last}{SUFFIX}"
    write_bytes(path, gzip.compress(b"".join(lines), 1, mtime=0))
    return Segment(first, last, path)


def _served(entry: Entry) -> bytes:
    """The line of an answer. Head and answer are JSON of the service and go in as they are."""
    fields = entry.fields
    if b"flags" in fields:
        return b""
    if b"shadow" in fields:
        return _shadow(entry)
    head = json.loads(fields[b"head"])
    if head["format"] != FORMAT:
        raise ValueError(f"format {head['format']}, {FORMAT} is known")
    record = fields.get(b"record")
    return b'{"id":"%s","head":%s,"asked":%s,"record":%s,"answer":%s}\n' % (
        str(entry.id).encode(),
        fields[b"head"],
        _text(fields[b"asked"]),
        b"null" if record is None else _text(record),
        fields.get(b"answer", b"null"),
    )


def _shadow(entry: Entry) -> bytes:
    scores = json.loads(entry.fields[b"shadow"])
    if scores["format"] != FORMAT:
        raise ValueError(f"format {scores['format']}, {FORMAT} is known")
    if missing := {"request_id", "user_id", "bundle_id"} - scores.keys():
        raise KeyError(min(missing))
    if len(scores["ads"]) != len(scores["pctr"]):
        raise ValueError(f"{len(scores['pctr'])} scores for {len(scores['ads'])} ads")
    return json.dumps({"id": str(entry.id), "shadow": scores}, ensure_ascii=False).encode() + b"\n"


def _events(entry: Entry) -> bytes:
    events = json.loads(entry.fields[b"events"])["events"]
    if strange := [each for each in events if not {"user_id", "kind"} <= each.keys()]:
        raise ValueError(f"{strange[0]!r:.80} is no event")
    return json.dumps({"id": str(entry.id), "events": events}, ensure_ascii=False).encode() + b"\n"


def _text(value: bytes) -> bytes:
    return json.dumps(value.decode(), ensure_ascii=False).encode()
