"""One user's stored features, packed in bytes: what Redis holds, one value a user, read in one round trip.

Line 1 is a JSON object with the raw profile; each further line is one event, oldest first:

    {"city":"Lyon","age":31}
    ["click",1650812741436,5239]
    ["click",1650812934945,6831]

Raw values are stored, not ids, so that a record outlives every bundle. An event is appended by concatenation, without
reading the record; `trim` keeps the last `limit` events of each kind. JSON writes a line break inside a string as \\n,
so a line is always one whole event.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from pydantic_core import from_json

from bundle.encoding import Encoder, Int64
from bundle.errors import RecordError
from bundle.schema import HistorySpec
from bundle.vocabulary import Vocabulary

Scalar = int | float | str | None
SCALARS = (int, float, str, type(None))


class Event(NamedTuple):
    """One thing a user did: its kind, when (Unix milliseconds), and the ad's id or the values that describe it.

    A tuple, because a frozen dataclass takes three times as long to make, and a record holds 50 and more of them.
    """

    kind: str
    time_ms: int
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class UserRecord:
    """What is known of a user: raw profile values and events, oldest first."""

    profile: Mapping[str, object] = field(default_factory=dict)
    events: tuple[Event, ...] = ()


EMPTY_PROFILE = b"{}\n"
NEWLINE = b"\n"


def pack(record: UserRecord) -> bytes:
    """The bytes of a record. RecordError for values that JSON cannot hold (NaN, bytes, lone surrogates)."""
    try:
        head = _line(dict(record.profile))
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError(f"the profile cannot be stored: {error}") from error
    return head + pack_events(record.events)


def pack_events(events: Iterable[Event]) -> bytes:
    """The bytes that append `events` to a record. RecordError for values that are not scalars of JSON."""
    lines: list[list[Scalar]] = [[event.kind, event.time_ms, *event.values] for event in events]
    try:
        _events(lines)
        return b"".join(map(_line, lines))
    except (TypeError, ValueError) as error:
        raise RecordError(f"the event cannot be stored: {error}") from error


def unpack(value: bytes) -> UserRecord:
    """The record in `value`. RecordError says what is wrong with it."""
    head, _, tail = value.partition(NEWLINE)
    try:
        profile = from_json(head, allow_inf_nan=False)
        lines = from_json(b"[" + tail.rstrip(NEWLINE).replace(NEWLINE, b",") + b"]", allow_inf_nan=False)
        if not isinstance(profile, dict):
            raise TypeError(f"the profile is {type(profile).__name__}, not an object")
        events = _events(lines)
    except (TypeError, ValueError) as error:
        raise RecordError(f"a record of {len(value)} bytes cannot be read: {error}") from error
    return UserRecord(profile, events)


def trim(value: bytes, limit: int) -> bytes:
    """`value` with only the last `limit` events of each kind."""
    head, _, tail = value.partition(b"\n")
    kept: list[bytes] = []
    seen: dict[bytes, int] = {}
    for line in reversed(tail.splitlines()):
        kind = line.partition(b'",')[0]
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= limit:
            kept.append(line)
    return b"\n".join([head, *reversed(kept)]) + b"\n"


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode() + NEWLINE


def _events(lines: Iterable[object]) -> tuple[Event, ...]:
    """The events that lines hold. TypeError for one that holds none.

    One loop without calls: 50 events take 25 us, as a function called for each of them 35.
    """
    events = []
    for line in lines:
        if not isinstance(line, list) or len(line) < 2:
            raise TypeError(f"an event is [kind, time, values...], not {line!r:.80}")
        kind, time_ms, *values = line
        if type(kind) is not str or type(time_ms) is not int:
            raise TypeError(f"an event begins with a string and an integer, not with {kind!r:.40} and {time_ms!r:.40}")
        for value in values:
            if not isinstance(value, SCALARS):
                raise TypeError(f"an event's values are numbers, strings or null, not {value!r:.80}")
        events.append(Event(kind, time_ms, tuple(values)))
    return tuple(events)


def encode_history(
    encoder: Encoder, history: HistorySpec, events: Iterable[Event], ads: Vocabulary, ad_ids: Int64 | np.ndarray
) -> Int64:
    """The last behaviours of one history as ids, int64[length >= 1, columns], oldest first.

    `ads` maps ad ids to catalogue rows and `ad_ids` is the encoded catalogue [rows, ad columns]; both serve histories
    of ads, the others carry their raw values. An empty history is one row of padding, which attention gives no weight.
    """
    mine = [event for event in events if event.kind in history.events][-history.max_length :]
    columns = encoder.schema.history_columns(history)
    if not mine:
        return np.zeros((1, len(columns)), dtype=np.int64)
    if history.of_ads:
        rows = ads.ids_of_list([event.values[0] if event.values else None for event in mine])
        return np.asarray(ad_ids).take(rows, axis=0)[:, columns].astype(np.int64)
    encoded = np.empty((len(mine), len(columns)), dtype=np.int64)
    for i, name in enumerate(history.fields):
        field = next(field for field in encoder.schema.ad.fields if field.name == name)
        values = [event.values[i] if i < len(event.values) else None for event in mine]
        encoded[:, i] = encoder.vocabulary_of(field).ids_of_list(values)
    return encoded
