from pathlib import Path
from typing import Any

import faiss as untyped
import numpy as np
import pytest

from bundle.folder import Ads, Bundle, Filter
from bundle.manifest import RetrievalStage
from bundle.schema import FIRST_KNOWN
from bundle.vocabulary import Vocabulary
from service.retrieval import AdIndex, allowed_by, interest_rows, interests, union
from tests.service.world import SCHEMA

faiss: Any = untyped
N, D = 2000, 8


@pytest.fixture(scope="module", params=["IDMap,Flat", "IVF20,SQ8", "IVF20,Flat"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AdIndex:
    vectors = make_vectors()
    made = faiss.index_factory(D, request.param, faiss.METRIC_INNER_PRODUCT)
    made.train(vectors[FIRST_KNOWN:])
    made.add_with_ids(vectors[FIRST_KNOWN:], np.arange(FIRST_KNOWN, N + FIRST_KNOWN))
    path = tmp_path_factory.mktemp("index") / "ads.faiss"
    faiss.write_index(made, str(path))
    empty = np.empty((0, 0), dtype=np.int32)
    ads = Ads(Vocabulary.of(range(N)), empty, empty.astype(np.float32), empty[:, :0].astype(np.float32), empty, vectors)  # type: ignore[arg-type]
    return AdIndex(path, RetrievalStage(keep=10, index="ads.faiss", nprobe=20), ads)


def make_vectors() -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    return np.concatenate([np.zeros((2, D)), rng.normal(size=(N, D))]).astype(np.float32)


def exact(query: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], n: int) -> set[int]:
    return set(rows[np.argsort(-(make_vectors()[rows] @ query))[:n]].tolist())


def test_the_nearest_ads_are_found(index: AdIndex) -> None:
    query = np.random.default_rng(1).normal(size=D).astype(np.float32)
    found = index.nearest(query, 50, None)
    assert len(found) == 50
    assert (
        len(exact(query, np.arange(2, N + 2), 50) & set(found.tolist())) >= 47
    )  # 8-bit codes swap a few at the border


@pytest.mark.parametrize("allowed", [1500, 60, 50, 49, 3, 1, 0])
def test_a_filter_is_filled_as_far_as_the_catalogue_goes(index: AdIndex, allowed: int) -> None:
    rng = np.random.default_rng(allowed)
    query = rng.normal(size=D).astype(np.float32)
    rows = np.sort(rng.choice(np.arange(2, N + 2), allowed, replace=False))
    mask = np.zeros(N + 2, dtype=np.bool_)
    mask[rows] = True
    found = index.nearest(query, 50, mask)
    assert len(found) == len(set(found.tolist())) == min(50, allowed)
    assert mask[found].all()
    assert len(exact(query, rows, 50) & set(found.tolist())) >= min(50, allowed) - 3


def test_more_than_there_are(index: AdIndex) -> None:
    query = np.ones(D, dtype=np.float32)
    assert sorted(index.nearest(query, 10 * N, None).tolist()) == list(range(2, N + 2))


def test_a_query_that_is_no_number_still_gives_ads(index: AdIndex) -> None:
    assert len(index.nearest(np.full(D, np.nan, dtype=np.float32), 10, None)) == 10


def test_interests_are_frequent_then_recent() -> None:
    clicks = np.array([[2, 9], [3, 9], [4, 9], [3, 9], [1, 9], [0, 0]])
    searches = np.array([[5], [4]])
    found = interests(SCHEMA, "category", {"clicks": clicks, "searches": searches}, 10)
    assert found == [4, 3, 5, 2]  # 4 and 3 twice, 4 at the end of a history; then 5, one before the end, then 2
    assert interests(SCHEMA, "category", {"clicks": clicks}, 1) == [3]
    assert interests(SCHEMA, "brand", {"clicks": clicks}, 5) == [9]
    assert interests(SCHEMA, "category", {"clicks": np.zeros((1, 2), dtype=np.int64)}, 5) == []


def test_posting_lists_give_the_best_qscores_of_an_interest(bundle: Bundle) -> None:
    histories = {"clicks": np.array([[4, 3]]), "searches": np.zeros((1, 1), dtype=np.int64)}
    found = interest_rows(bundle, histories, None, 100)
    rows = np.flatnonzero(bundle.ads.fields[:, 0] == 4)
    assert found.tolist() == rows[np.argsort(-bundle.ads.qscores[rows])][:10].tolist()
    assert len(interest_rows(bundle, histories, None, 3)) == 3
    mask = np.zeros(302, dtype=np.bool_)
    mask[rows[::2]] = True
    assert set(interest_rows(bundle, histories, mask, 100).tolist()) <= set(rows[::2].tolist())


def test_filters_are_conditions_that_all_hold() -> None:
    colours, sizes = Vocabulary.of(["blue", "red"]), Vocabulary.of([1, 2])
    filters = {
        "colour": Filter(np.array([0, 1, 2, 3, 1, 3], dtype=np.int32), colours),
        "size": Filter(np.array([0, 1, 2, 2, 3, 3], dtype=np.int32), sizes),
    }

    def rows(asked: dict[str, tuple[bool, list[object]]]) -> list[int]:
        mask = allowed_by(filters, asked, 6)
        assert mask is not None
        return [int(row) for row in np.flatnonzero(mask)]

    assert allowed_by(filters, {}, 6) is None
    assert rows({"colour": (True, ["red"])}) == [3, 5]
    assert rows({"colour": (True, ["red", "blue"])}) == [2, 3, 5]
    assert rows({"colour": (False, ["red"])}) == [2, 4]  # an ad without a value is not red
    assert rows({"colour": (True, ["red"]), "size": (True, ["2", 7.5, None])}) == [5]
    assert rows({"colour": (True, ["green", None])}) == []
    assert rows({"colour": (False, ["green", None])}) == [2, 3, 4, 5]


def test_union_keeps_all_of_the_first_and_fills_up() -> None:
    first, then = np.array([9, 4, 4]), np.array([4, 7, 2, 9, 5])
    assert union(first, then, 12, 4).tolist() == [2, 4, 7, 9]
    assert union(first, then, 12, 100).tolist() == [2, 4, 5, 7, 9]
    assert union(np.empty(0, dtype=np.int64), then, 12, 2).tolist() == [4, 7]


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    from bundle.errors import ContractError

    (tmp_path / "x.faiss").write_bytes(b"rubbish" * 10)
    ads = Ads(Vocabulary.of([1]), *(np.zeros((1, 1), dtype=np.float32),) * 5)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match=r"x.faiss: not a faiss index"):
        AdIndex(tmp_path / "x.faiss", RetrievalStage(keep=1, index="x.faiss"), ads)


def test_an_index_that_visits_too_few_lists_does_not_starve_a_filter(tmp_path: Path) -> None:
    vectors = make_vectors()
    made = faiss.index_factory(D, "IVF50,Flat", faiss.METRIC_INNER_PRODUCT)
    made.train(vectors[FIRST_KNOWN:])
    made.add_with_ids(vectors[FIRST_KNOWN:], np.arange(FIRST_KNOWN, N + FIRST_KNOWN))
    faiss.write_index(made, str(tmp_path / "ads.faiss"))
    empty: Any = np.empty((0, 0))
    ads = Ads(Vocabulary.of(range(N)), empty, empty, empty, empty, vectors)
    index = AdIndex(tmp_path / "ads.faiss", RetrievalStage(keep=10, index="ads.faiss", nprobe=1), ads)
    mask = np.zeros(N + 2, dtype=np.bool_)
    mask[2:202] = True
    query = np.ones(D, dtype=np.float32)
    assert set(index.nearest(query, 100, mask).tolist()) == exact(query, np.arange(2, 202), 100)
