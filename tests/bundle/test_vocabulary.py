import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bundle import vocabulary as module
from bundle.errors import ContractError
from bundle.vocabulary import Vocabulary

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(lambda text: not text.endswith("\0"))
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(-3, 12),
    st.integers(-3, 12).map(float),
    st.integers(-3, 12).map(str),
    st.integers(-3, 12).map(lambda i: str(i).encode()),
    st.floats(),
    st.text(max_size=4),
    st.text(max_size=2).map(lambda text: text + "\0"),
    st.binary(max_size=4),
    st.lists(st.integers(), max_size=1),
    st.integers(-3, 12).map(np.int32),
    st.floats(width=32).map(np.float32),
)
VOCABULARIES = st.one_of(
    st.sets(st.one_of(st.integers(-3, 12), INT64), max_size=12).map(Vocabulary.of),
    st.sets(
        st.one_of(TEXT, st.integers(-3, 12).map(str), st.sampled_from(["nan", "inf", "True", "�"])), max_size=12
    ).map(Vocabulary.of),
)


def objects(values: list[object]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def searching(vocabulary: Vocabulary) -> Vocabulary:
    """The same vocabulary as if it were too large for a dictionary."""
    other = Vocabulary(vocabulary.values)
    other._ids = None
    return other


@given(VOCABULARIES, st.lists(ANYTHING, max_size=12))
@example(Vocabulary.of(["a"]), ["a\0"])
@example(Vocabulary.of([-(2**63)]), [float(-(2**63)), 2**63, 2.0**63])
def test_one_value_equals_many(vocabulary: Vocabulary, values: list[object]) -> None:
    one_by_one = [vocabulary.id_of(value) for value in values]
    assert vocabulary.ids_of(objects(values)).tolist() == one_by_one
    assert [searching(vocabulary).id_of(value) for value in values] == one_by_one
    assert vocabulary.ids_of_list(values).tolist() == one_by_one
    assert searching(vocabulary).ids_of_list(values).tolist() == one_by_one


@given(VOCABULARIES, st.one_of(st.lists(st.integers(-(2**70), 2**70)), st.lists(st.text(max_size=9)), st.lists(TEXT)))
@example(Vocabulary.of(["a", "ab"]), ["ab", "abc", "a\0", "ab\0\0", "\ud800", ""])
@example(Vocabulary.of([2**63 - 1, -1]), [2**63 - 1, 2**63, 2**64 - 1, 2**64, -1])
def test_values_of_one_type_are_looked_up_together(vocabulary: Vocabulary, values: list[object]) -> None:
    one_by_one = [vocabulary.id_of(value) for value in values]
    for each in (vocabulary, searching(vocabulary)):
        found = each.ids_of_list(values)
        assert found.dtype == np.int32
        assert found.tolist() == one_by_one


@given(
    VOCABULARIES,
    st.one_of(
        st.lists(INT64, max_size=8).map(lambda x: np.array(x, dtype=np.int64)),
        st.lists(st.integers(0, 2**64 - 1), max_size=8).map(lambda x: np.array(x, dtype=np.uint64)),
        st.lists(st.integers(-3, 12), max_size=8).map(lambda x: np.array(x, dtype=np.int8)),
        st.lists(st.booleans(), max_size=8).map(lambda x: np.array(x, dtype=np.bool_)),
        st.lists(st.floats(), max_size=8).map(lambda x: np.array(x, dtype=np.float64)),
        st.lists(st.integers(-3, 12).map(float), max_size=8).map(lambda x: np.array(x, dtype=np.float32)),
        st.lists(st.floats(width=16), max_size=8).map(lambda x: np.array(x, dtype=np.float16)),
        st.lists(st.binary(max_size=5), max_size=8).map(lambda x: np.array(x, dtype=np.bytes_)),
        st.lists(TEXT, max_size=8).map(lambda x: np.array(x, dtype=np.str_)),
    ),
)
@example(Vocabulary.of([-1]), np.array([2**64 - 1], dtype=np.uint64))
@example(Vocabulary.of([-(2**63)]), np.array([-(2.0**63)]))
def test_typed_arrays_equal_single_look_ups(vocabulary: Vocabulary, values: np.ndarray) -> None:
    found = vocabulary.ids_of(values)
    assert found.dtype == np.int32
    assert found.tolist() == [vocabulary.id_of(value) for value in values.tolist()]
    assert found.tolist() == [vocabulary.id_of(value) for value in values], "numpy scalars mean the same"


@given(st.one_of(st.sets(INT64, max_size=20), st.sets(TEXT, max_size=20)))
def test_values_make_the_round_trip(values: set[int] | set[str]) -> None:
    vocabulary = Vocabulary.of(values)
    assert (len(vocabulary), vocabulary.size) == (len(values), len(values) + 2)
    assert {vocabulary.value_of(vocabulary.id_of(value)) for value in values} == values
    assert sorted(vocabulary.id_of(value) for value in values) == list(range(2, vocabulary.size))


@pytest.mark.parametrize("value", [4, 4.0, "4", b"4", np.int64(4), np.float32(4), np.str_("4")])
def test_four_is_four_however_it_comes(value: object) -> None:
    assert Vocabulary.of([3, 4]).id_of(value) == 3
    assert Vocabulary.of(["3", "4"]).id_of(value) == 3


@pytest.mark.parametrize(
    "value", [None, math.nan, math.inf, 4.5, 5, "x", "4.5", [4], {}, 2**64, pytest.param(10**5000, id="huge"), "\ud800"]
)
def test_what_was_never_seen_is_unknown(value: object) -> None:
    assert Vocabulary.of([3, 4]).id_of(value) == 1
    assert Vocabulary.of(["3", "4"]).id_of(value) == 1


def test_none_is_not_the_text_none() -> None:
    assert Vocabulary.of(["None", "nan"]).ids_of(objects([None, math.nan, "None", "nan"])).tolist() == [1, 1, 2, 3]


def test_unicode_is_ordered_by_code_point() -> None:
    vocabulary = Vocabulary.of(["ü", "z", "日本", "\U0001f600", ""])
    assert [vocabulary.value_of(i) for i in range(2, 7)] == ["", "z", "ü", "日本", "\U0001f600"]


def test_nul_may_stand_inside_but_not_at_the_end() -> None:
    vocabulary = Vocabulary.of(["a", "a\0b"])
    assert (vocabulary.id_of("a\0b"), vocabulary.value_of(3)) == (3, "a\0b")
    assert vocabulary.id_of("a\0") == 1
    assert vocabulary.ids_of(objects(["a\0", "a", "a\0b"])).tolist() == [1, 2, 3]
    with pytest.raises(ContractError, match=r"'a\\x00' cannot be stored: it ends in NUL"):
        Vocabulary.of(["b", "a\0"])


def test_values_without_a_form_are_refused() -> None:
    with pytest.raises(ContractError, match="lone surrogates"):
        Vocabulary.of(["\ud800"])
    with pytest.raises(ContractError, match="integers from 1 to 9223372036854775808 do not fit"):
        Vocabulary.of([1, 2**63])


@pytest.mark.parametrize("values", [[], [7], [-5, 2**62], ["", "x", "日本"], ["a" * 300]])
def test_files_are_mapped_and_equal(tmp_path: Path, values: list[int]) -> None:
    vocabulary = Vocabulary.of(values)
    vocabulary.save(tmp_path / "v.npy")
    loaded = Vocabulary.load(tmp_path / "v.npy")
    assert isinstance(loaded.values.base, np.memmap)
    assert loaded.values.tolist() == vocabulary.values.tolist()
    assert [loaded.id_of(value) for value in values] == [vocabulary.id_of(value) for value in values]
    assert loaded.id_of("never") == 1
    assert loaded.ids_of(np.array([99])).tolist() == [1]


@pytest.mark.parametrize(
    "content", [b"", b"no array", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x01\x00\x10\x00{'descr"]
)
def test_files_that_are_no_array_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.npy").write_bytes(content)
    with pytest.raises(ContractError, match=r"v\.npy: not a readable vocabulary"):
        Vocabulary.load(tmp_path / "v.npy")


@pytest.mark.parametrize("i", [-1, 0, 1, 4])
def test_only_known_ids_have_a_value(i: int) -> None:
    with pytest.raises(IndexError, match=rf"id {i} stands for no value, known ones are 2\.\.3"):
        Vocabulary.of([5, 6]).value_of(i)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([2, 1]), "must ascend"),
        (np.array([1, 1]), "must ascend"),
        (np.array([1.0]), "not float64"),
        (np.array([[1]]), r"not int64\[1, 1\]"),
        (np.array(["a"]), "not <U1"),
    ],
)
def test_other_arrays_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        Vocabulary(values)


def test_a_large_vocabulary_needs_no_dictionary() -> None:
    last = 3 * module.SMALL
    vocabulary = Vocabulary(np.arange(0, last + 1, 3))
    assert vocabulary._ids is None
    probes = np.array([0, 1, 3, last, last - 1, -1, 10**12])
    assert vocabulary.ids_of(probes).tolist() == [2, 1, 3, module.SMALL + 2, 1, 1, 1]
    assert [vocabulary.id_of(int(value)) for value in probes] == [2, 1, 3, module.SMALL + 2, 1, 1, 1]
