"""Ids lead to rows in any order of the catalogue, and back."""

from pathlib import Path

import numpy as np
import pytest

from bundle import vocabulary
from bundle.ad_index import AdIndex
from bundle.errors import ContractError
from bundle.vocabulary import Vocabulary

ORDER = np.array([0, 1, 5, 2, 4, 3])
"""The rows hold the fourth, the first, the third and the second ad."""


@pytest.fixture(params=["dictionary", "search"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "search":
        monkeypatch.setattr(vocabulary, "SMALL", 0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("ids", [[10, 20, 30, 40], ["a", "b", "c", "d"]])
def test_ids_lead_to_rows_and_back(ids: list[int] | list[str], tmp_path: Path) -> None:
    AdIndex.ordered(Vocabulary.of(ids), ORDER).write(tmp_path)
    index = AdIndex.open(tmp_path, 4)
    index.check(tmp_path)
    rows = [3, 5, 4, 2]
    assert [index.id_of(each) for each in ids] == rows
    assert index.ids_of(np.array(ids, dtype=object)).tolist() == rows
    assert index.ids_of_list(ids).tolist() == rows
    assert index.ids_of(index.values).tolist() == rows
    assert [index.value_of(row) for row in rows] == ids
    assert (len(index), index.size) == (4, 6)
    strange = 15 if isinstance(ids[0], int) else "bb"
    assert index.id_of(strange) == 1
    assert index.ids_of_list([strange, ids[0]]).tolist() == [1, 3]
    with pytest.raises(ContractError, match=r"ids.npy: 4 ads, the manifest says 5"):
        AdIndex.open(tmp_path, 5)
    with pytest.raises(IndexError, match="id 1 stands for no value"):
        index.value_of(1)


def test_without_an_order_rows_are_those_of_the_ids(tmp_path: Path) -> None:
    index = AdIndex(np.array([7, 8, 9]))
    index.check(tmp_path)
    assert [index.id_of(each) for each in (7, 8, 9)] == [2, 3, 4]
    assert index.value_of(4) == 9


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("places", [0, 1, 5, 2, 4, 2], "do not lead there and back"),
        ("places", [0, 1, 6, 2, 4, 3], "do not lead there and back"),
        ("places", [0, 1, -1, 2, 4, 3], "do not lead there and back"),
        ("rows", [0, 1, 3, 5, 4, 4], "do not lead there and back"),
        ("rows", [0, 1, 3, 5, 4], r"rows.npy: int32\[5\], the manifest needs int32\[6\]"),
    ],
)
def test_arrays_that_are_no_order_are_refused(name: str, values: list[int], message: str, tmp_path: Path) -> None:
    AdIndex.ordered(Vocabulary.of([10, 20, 30, 40]), ORDER).write(tmp_path)
    np.save(tmp_path / f"{name}.npy", np.array(values, dtype=np.int32))
    with pytest.raises(ContractError, match=message):
        AdIndex.open(tmp_path, 4).check(tmp_path)


def test_reserved_rows_stay_where_they_are(tmp_path: Path) -> None:
    index = AdIndex.ordered(Vocabulary.of([10, 20]), np.array([1, 0, 3, 2]))
    with pytest.raises(ContractError, match=r"rows.npy: begins with \[1, 0\], \[0, 1\] is needed"):
        index.check(tmp_path)
