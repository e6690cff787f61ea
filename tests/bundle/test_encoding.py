import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.encoding import Encoder, Ragged
from bundle.errors import ContractError
from bundle.schema import FeatureSchema, FieldSpec, Kind, Side
from bundle.vocabulary import Vocabulary

VOCABULARIES = {"city": Vocabulary.of(["Lyon", "Ulm", "4"]), "tag": Vocabulary.of([1, 2, 3, 4, 5])}
SIDE = Side(
    fields=(
        FieldSpec(name="city", kind=Kind.CATEGORICAL, vocabulary="city", size=5),
        FieldSpec(name="price", kind=Kind.NUMBER, mean=2.0, std=4.0),
        FieldSpec(name="age", kind=Kind.BUCKETED, edges=(18.0, 30.0, 65.0), size=6),
        FieldSpec(name="tags", kind=Kind.MULTIVALUED, vocabulary="tag", size=7, width=3),
        FieldSpec(name="sales", kind=Kind.NUMBER, mean=1.0, std=2.0, log=True),
    )
)
ENCODER = Encoder(FeatureSchema(user_key="u", ad_key="a", ad=SIDE), VOCABULARIES)

NUMBERS = st.one_of(
    st.none(), st.floats(), st.integers(-(2**70), 2**70), st.sampled_from(["7", "x", "", "1e400", True])
)
ROWS = st.fixed_dictionaries(
    {
        "city": st.one_of(st.none(), st.sampled_from(["Lyon", "Ulm", "Rome", 4, 4.0, math.nan]), st.text(max_size=3)),
        "price": NUMBERS,
        "age": NUMBERS,
        "tags": st.lists(st.one_of(st.none(), st.integers(0, 9), st.sampled_from(["4", 5.0, "x"])), max_size=5),
        "sales": NUMBERS,
    }
)


def column(values: list[object]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


@given(st.lists(ROWS, min_size=1, max_size=6))
def test_many_rows_equal_single_ones(rows: list[dict[str, object]]) -> None:
    lists: list[list[object]] = [row["tags"] for row in rows]  # type: ignore[misc]
    columns: dict[str, np.ndarray | Ragged] = {name: column([row[name] for row in rows]) for name in rows[0]}
    flat = column([value for each in lists for value in each])
    columns["tags"] = Ragged(flat, np.cumsum([0, *map(len, lists)]).astype(np.int64))
    ids, numbers = ENCODER.encode_rows(SIDE, columns, len(rows))
    assert ids.dtype == np.int32
    assert numbers.dtype == np.float32
    assert np.isfinite(numbers).all()
    sizes = np.array([5, 6, 7, 7, 7])
    assert ((ids >= 0) & (ids < sizes)).all()
    for i, row in enumerate(rows):
        one_ids, one_numbers = ENCODER.encode_one(SIDE, row)
        assert one_ids.dtype == np.int64
        assert one_ids.tolist() == ids[i].tolist()
        np.testing.assert_array_equal(one_numbers, numbers[i])


def test_a_row_by_hand() -> None:
    ids, numbers = ENCODER.encode_one(
        SIDE, {"city": "Ulm", "price": 10, "age": 30, "tags": [3, 9], "sales": math.e - 1}
    )
    assert ids.tolist() == [4, 4, 4, 1, 0]
    np.testing.assert_allclose(numbers, [2.0, 0.0], atol=1e-6)


def test_absent_values_are_unknown_and_average() -> None:
    ids, numbers = ENCODER.encode_one(SIDE, {})
    assert ids.tolist() == [1, 1, 1, 0, 0]
    assert numbers.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("age", "bucket"), [(-math.inf, 2), (17.9, 2), (18, 3), (64, 4), (65, 5), (math.inf, 5)])
def test_a_value_on_an_edge_belongs_above_it(age: float, bucket: int) -> None:
    assert ENCODER.encode_one(SIDE, {"age": age})[0][1] == bucket


def test_a_single_value_for_a_multivalued_field() -> None:
    assert ENCODER.encode_one(SIDE, {"tags": 2})[0][2:].tolist() == [3, 0, 0]
    assert ENCODER.encode_one(SIDE, {"tags": [1, 2, 3, 4]})[0][2:].tolist() == [2, 3, 4]


def test_numbers_that_float32_cannot_hold_become_the_mean() -> None:
    assert ENCODER.encode_one(SIDE, {"price": 1e300})[1][0] == 0.0
    assert ENCODER.encode_one(SIDE, {"price": 10**400})[1][0] == 0.0


def test_negative_sales_count_as_none() -> None:
    assert ENCODER.encode_one(SIDE, {"sales": -5})[1][1] == ENCODER.encode_one(SIDE, {"sales": 0})[1][1] == -0.5


def test_lists_of_no_value_at_all() -> None:
    empty = Ragged(np.zeros(0, dtype=np.int64), np.zeros(3, dtype=np.int64))
    assert len(empty) == 2
    columns = {name: np.zeros(2) for name in ("city", "price", "age", "sales")} | {"tags": empty}
    assert ENCODER.encode_rows(SIDE, columns, 2)[0][:, 2:].tolist() == [[1, 0, 0], [1, 0, 0]]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(KeyError, match="city"):
        ENCODER.encode_rows(SIDE, {}, 1)


def test_lists_where_single_values_belong_and_the_reverse() -> None:
    ragged = Ragged(np.array([1]), np.array([0, 1]))
    columns: dict[str, np.ndarray | Ragged] = {name: np.zeros(1) for name in ("city", "price", "age", "sales")}
    columns["tags"] = ragged
    with pytest.raises(ContractError, match="'tags' is multi-valued, its column must be ragged"):
        ENCODER.encode_rows(SIDE, columns | {"tags": np.zeros(1)}, 1)
    with pytest.raises(ContractError, match="'city' is categorical, its column must not be ragged"):
        ENCODER.encode_rows(SIDE, columns | {"city": ragged}, 1)
    with pytest.raises(ContractError, match="'price' is a number, its column must not be ragged"):
        ENCODER.encode_rows(SIDE, columns | {"price": ragged}, 1)


def test_vocabularies_must_be_there_and_fit() -> None:
    schema = FeatureSchema(user_key="u", ad_key="a", ad=SIDE)
    with pytest.raises(ContractError, match="'city' needs vocabulary 'city', which is not there"):
        Encoder(schema, {})
    with pytest.raises(ContractError, match="'city' has size 5, its vocabulary 3"):
        Encoder(schema, {"city": Vocabulary.of(["Lyon"])})
