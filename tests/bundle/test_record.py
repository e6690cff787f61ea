import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.encoding import Encoder
from bundle.errors import RecordError
from bundle.record import (
    EMPTY_PROFILE,
    Event,
    UserRecord,
    encode_history,
    pack,
    pack_events,
    trim,
    unpack,
)
from bundle.schema import FeatureSchema, FieldSpec, HistorySpec, Kind, Side
from bundle.vocabulary import Vocabulary
from tests.bundle import small

SCALARS = st.one_of(
    st.none(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    st.sampled_from(["\n", "a\r\nb", "\u2028", "\x85", '","', "\0", "日本"]),
)
EVENTS = st.builds(
    Event,
    st.sampled_from(["click", "impression", "a,b", "line\nbreak"]),
    st.integers(0, 2**50),
    st.lists(SCALARS, max_size=3).map(tuple),
)
RECORDS = st.builds(
    UserRecord,
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.one_of(SCALARS, st.lists(SCALARS, max_size=2)),
        max_size=4,
    ),
    st.lists(EVENTS, max_size=6).map(tuple),
)


@given(RECORDS)
def test_packing_loses_nothing(record: UserRecord) -> None:
    packed = pack(record)
    assert unpack(packed) == record
    assert packed.count(b"\n") == 1 + len(record.events), "one line each, whatever stands in the strings"


@given(RECORDS, st.lists(EVENTS, max_size=3))
def test_events_are_appended_by_concatenation(record: UserRecord, more: list[Event]) -> None:
    assert unpack(pack(record) + pack_events(more)) == UserRecord(record.profile, (*record.events, *more))
    assert unpack(EMPTY_PROFILE + pack_events(more)) == UserRecord({}, tuple(more))


@given(RECORDS, st.integers(0, 4))
def test_trim_keeps_the_last_of_each_kind(record: UserRecord, limit: int) -> None:
    kept: list[Event] = []
    for event in reversed(record.events):
        if sum(each.kind == event.kind for each in kept) < limit:
            kept.append(event)
    assert unpack(trim(pack(record), limit)) == UserRecord(record.profile, tuple(reversed(kept)))


@given(st.binary(max_size=60))
def test_random_bytes_are_a_record_or_a_record_error(value: bytes) -> None:
    try:
        unpack(value)
    except RecordError as error:
        assert f"a record of {len(value)} bytes cannot be read" in str(error)  # noqa: PT017


@given(RECORDS, st.data())
def test_damaged_records_are_a_record_or_a_record_error(record: UserRecord, data: st.DataObject) -> None:
    value = bytearray(pack(record))
    for _ in range(data.draw(st.integers(1, 3))):
        value[data.draw(st.integers(0, len(value) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(value[: data.draw(st.integers(0, len(value)))])
    for damaged in (bytes(value), cut):
        try:
            found = unpack(damaged)
        except RecordError:
            continue
        assert unpack(pack(found)) == found, "what is read after all is a whole record"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "EOF while parsing a value"),
        (b"[]", "the profile is list, not an object"),
        (b"null", "the profile is NoneType"),
        (b'{"age":NaN}', "expected value at line 1 column 8"),
        (b'{"city":"\xff"}', "invalid unicode"),
        (b"\xff\xfe{\x00}\x00", "expected value at line 1 column 1"),
        (b"[" * 100_000, "recursion"),
        (b'{}\n["click",1,2\n', "EOF while parsing a list"),
        (b'{}\n["click"]\n', r"an event is \[kind, time, values\.\.\.\]"),
        (b'{}\n{"click":1,"b":2}\n', "an event is"),
        (b'{}\n"ab"\n', "an event is"),
        (b"{}\n[1,2]\n", "begins with a string and an integer, not with 1 and 2"),
        (b'{}\n["click","1"]\n', "not with 'click' and '1'"),
        (b'{}\n["click",1.5]\n', "not with 'click' and 1.5"),
        (b'{}\n["click",true]\n', "not with 'click' and True"),
        (b'{}\n["click",Infinity]\n', "expected value at line 1 column 11"),
        (b'{}\n["click",1,"\\ud800"]\n', "hex escape"),
        (b'{}\n["click",1,[2]]\n', r"numbers, strings or null, not \[2\]"),
        (b'{}\n["click",1]\n\n["click",2]\n', "cannot be read"),
    ],
)
def test_what_is_no_record_is_refused(value: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        unpack(value)


@pytest.mark.parametrize("bad", [math.nan, math.inf, b"x", "\ud800", {1, 2}, np.int64(3)])
def test_what_json_cannot_hold_is_not_stored(bad: object) -> None:
    with pytest.raises(RecordError, match="the profile cannot be stored"):
        pack(UserRecord({"age": bad}))
    with pytest.raises(RecordError, match="the event cannot be stored"):
        pack_events([Event("click", 1, (bad,))])  # type: ignore[arg-type]


def test_an_event_that_could_not_be_read_back_is_not_stored() -> None:
    with pytest.raises(RecordError, match=r"not \[1\]"):
        pack_events([Event("click", 1, ([1],))])  # type: ignore[arg-type]
    with pytest.raises(RecordError, match=r"not with 'click' and 1\.5"):
        pack_events([Event("click", 1.5, ())])  # type: ignore[arg-type]


CLICKS = small.SCHEMA.histories[0]
AD_IDS = np.array([[0], [1], [2], [3], [2]])


def test_a_history_of_ads_is_looked_up_in_the_catalogue() -> None:
    events = [Event("click", i, (ad,)) for i, ad in enumerate(["ad-1", "ad-9", "ad-2", "ad-3"])]
    ids = encode_history(small.ENCODER, CLICKS, events, small.ADS, AD_IDS)
    assert ids.dtype == np.int64
    assert ids.tolist() == [[2], [1], [3], [2]]


def test_only_the_last_events_of_the_right_kinds_are_read() -> None:
    events = [Event("click", i, (f"ad-{1 + i % 2}",)) for i in range(7)] + [Event("impression", 9, ("ad-1",))] * 9
    assert encode_history(small.ENCODER, CLICKS, events, small.ADS, AD_IDS).tolist() == [[3], [2], [3], [2]]


def test_no_events_are_one_row_of_padding() -> None:
    assert encode_history(small.ENCODER, CLICKS, [], small.ADS, AD_IDS).tolist() == [[0]]
    assert encode_history(small.ENCODER, CLICKS, [Event("click", 1, ())], small.ADS, AD_IDS).tolist() == [[1]]


def test_a_history_of_raw_values_is_encoded_by_the_vocabularies() -> None:
    fields = (
        FieldSpec(name="category", kind=Kind.CATEGORICAL, vocabulary="category", size=4),
        FieldSpec(name="brand", kind=Kind.CATEGORICAL, vocabulary="brand", size=3),
    )
    history = HistorySpec(name="views", fields=("brand", "category"), of_ads=False, max_length=5, events=("view",))
    encoder = Encoder(
        FeatureSchema(user_key="u", ad_key="a", ad=Side(fields=fields), histories=(history,)),
        {"category": Vocabulary.of([10, 20]), "brand": Vocabulary.of(["acme"])},
    )
    events = [Event("view", 1, ("acme", 20)), Event("view", 2, (None, "10")), Event("view", 3, ("acme",))]
    assert encode_history(encoder, history, events, Vocabulary.of([]), np.zeros((2, 2))).tolist() == [
        [2, 3],
        [1, 2],
        [2, 1],
    ]


@given(st.lists(EVENTS, max_size=8))
def test_looking_values_up_together_gives_what_one_by_one_gives(events: list[Event]) -> None:
    fields = (
        FieldSpec(name="category", kind=Kind.CATEGORICAL, vocabulary="category", size=5),
        FieldSpec(name="brand", kind=Kind.CATEGORICAL, vocabulary="brand", size=5),
    )
    raw = HistorySpec(name="raw", fields=("brand", "category"), of_ads=False, max_length=4, events=("click",))
    ads = HistorySpec(name="ads", fields=("category",), max_length=4, events=("click", "impression"))
    vocabularies = {"category": Vocabulary.of([-1, 0, 1]), "brand": Vocabulary.of(["\n", "\x85", "1"])}
    encoder = Encoder(
        FeatureSchema(user_key="u", ad_key="a", ad=Side(fields=fields), histories=(raw, ads)), vocabularies
    )
    index, catalogue = Vocabulary.of([0, 1, 2**60]), np.arange(10).reshape(5, 2)
    clicks = [event for event in events if event.kind == "click"][-4:]
    expected = [
        [
            vocabularies[name].id_of(event.values[i] if i < len(event.values) else None)
            for i, name in enumerate(raw.fields)
        ]
        for event in clicks
    ]
    assert encode_history(encoder, raw, events, index, catalogue).tolist() == (expected or [[0, 0]])
    seen = [event for event in events if event.kind in ads.events][-4:]
    rows = [index.id_of(event.values[0] if event.values else None) for event in seen]
    found = encode_history(encoder, ads, events, index, catalogue)
    assert found.tolist() == ([[catalogue[row, 0]] for row in rows] or [[0]])


def test_a_profile_is_encoded_as_the_user_side() -> None:
    ids, numbers = small.ENCODER.encode_one(
        small.SCHEMA.user, UserRecord({"city": "Ulm", "age": 60, "shoe size": 44}).profile
    )
    assert (ids.tolist(), numbers.tolist()) == ([3], [2.0])
