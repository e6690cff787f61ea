from datetime import date, datetime

import numpy as np
import polars as pl
import pytest

from bundle.encoding import Ragged
from bundle.vocabulary import Vocabulary
from models.data import columns
from models.data.spec import DataError


def test_whole_floats_are_integers_and_nan_is_missing() -> None:
    found = columns.category(pl.Series([3.0, float("nan"), None]), "file: column 'x'")
    assert found.to_list() == [3, None, None]
    assert found.dtype == pl.Int64


@pytest.mark.parametrize("values", [["a", "b"], [True, False], [date(2020, 1, 2), date(2020, 1, 3)]])
def test_other_types_become_text_or_integers(values: list[object]) -> None:
    assert columns.category(pl.Series(values), "x").dtype in (pl.String, pl.Int64)


def test_a_fraction_is_no_category() -> None:
    with pytest.raises(DataError, match=r"log.csv: column 'x', row 12: 0.5, .*bucketed"):
        columns.category(pl.Series([1.0, 2.0, 0.5]), "log.csv: column 'x'", 10)


def test_an_integer_beyond_64_bits_is_refused() -> None:
    with pytest.raises(DataError, match="64 bits"):
        columns.category(pl.Series([2**63], dtype=pl.UInt64), "x")


@pytest.mark.parametrize("bad", [2, -1, None])
def test_a_label_is_0_or_1(bad: int | None) -> None:
    with pytest.raises(DataError, match=r"row 2: .*a label must be 0 or 1"):
        columns.label(pl.Series([0, 1, bad]), "log: column 'click'")


@pytest.mark.parametrize("bad", [float("nan"), 0.5])
def test_a_label_is_no_fraction(bad: float) -> None:
    with pytest.raises(DataError, match="a label must be 0 or 1"):
        columns.label(pl.Series([0.0, bad]), "log: column 'click'")


def test_labels_of_several_types() -> None:
    for series in (pl.Series([0, 1]), pl.Series([0.0, 1.0]), pl.Series([False, True])):
        assert columns.label(series, "x").to_list() == [0, 1]


def test_times() -> None:
    assert columns.time(pl.Series([5.0, 7.0]), "x").to_list() == [5, 7]
    assert columns.time(pl.Series([datetime(1970, 1, 1, 0, 0, 1)]), "x").to_list() == [1000]
    with pytest.raises(DataError, match="every row needs a time"):
        columns.time(pl.Series([1, None]), "x")
    with pytest.raises(DataError, match="whole number"):
        columns.time(pl.Series([1.5]), "x")
    with pytest.raises(DataError, match="no time"):
        columns.time(pl.Series(["yesterday"]), "x")


def test_text_that_is_no_number() -> None:
    assert columns.number(pl.Series(["1.5", None]), "x").to_list()[0] == 1.5
    with pytest.raises(DataError, match=r"row 1: 'many', a number is needed"):
        columns.number(pl.Series(["1.5", "many"]), "x")


def test_positions_probabilities_and_bids_have_bounds() -> None:
    with pytest.raises(DataError, match="from 0 to 32767"):
        columns.position(pl.Series([0, -1]), "x")
    with pytest.raises(DataError, match="from 0 to 32767"):
        columns.position(pl.Series([0, None]), "x")
    with pytest.raises(DataError, match="probability"):
        columns.probability(pl.Series([0.5, 1.5]), "x")
    with pytest.raises(DataError, match="bid"):
        columns.bid(pl.Series([1.0, None]), "x")


def test_several_values_from_text_and_lists() -> None:
    assert columns.several(pl.Series(["a,b", None, "", "c"]), ",", "x").to_list() == [["a", "b"], [], [], ["c"]]
    assert columns.several(pl.Series([[1, None, 2], None]), None, "x").to_list() == [[1, 2], []]
    assert columns.several(pl.Series([1, 12]), ",", "x").to_list() == [["1"], ["12"]]
    with pytest.raises(DataError, match="no separator"):
        columns.several(pl.Series(["a,b"]), None, "x")


def test_missing_values_reach_the_encoder_as_unknown() -> None:
    text = columns.encodable(pl.Series(["b", None, "é"]))
    assert isinstance(text, np.ndarray)
    assert Vocabulary.of(["a", "b", "é"]).ids_of(text).tolist() == [3, 1, 4]
    whole = columns.encodable(pl.Series([7, None]))
    assert isinstance(whole, np.ndarray)
    assert Vocabulary.of([0, 7]).ids_of(whole).tolist() == [3, 1]


def test_lists_become_ragged() -> None:
    ragged = columns.encodable(pl.Series([["b", "a"], [], None, ["c"]]))
    assert isinstance(ragged, Ragged)
    assert ragged.values.tolist() == [b"b", b"a", b"c"]
    assert ragged.offsets.tolist() == [0, 2, 2, 2, 3]
