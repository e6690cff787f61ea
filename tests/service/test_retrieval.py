"""Interests and cells together, against sets built the slow way."""

import numpy as np
import numpy.typing as npt
import pytest

from bundle.bitmap import Bitmap, of_rows
from bundle.folder import Bundle
from service.retrieval import interest_rows, interests, retrieve, worthiest
from tests.service.graphs import DIMENSION
from tests.service.world import SCHEMA

ADS = 300
HISTORIES = {"clicks": np.array([[4, 3], [4, 8], [2, 5]]), "searches": np.zeros((1, 1), dtype=np.int64)}
"""Interests: category 4, then 2."""


def query(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)


def some(share: float, seed: int = 0) -> tuple[Bitmap, set[int]]:
    rows = np.flatnonzero(np.random.default_rng(seed).random(ADS) < share) + 2
    return of_rows(rows, ADS + 2), set(rows.tolist())


def slow(bundle: Bundle, seed: int, keep: int, allowed: set[int]) -> set[int]:
    """All ads of the interests, then those of the best cells until `keep` are together."""
    found = set()
    for value in (4, 2)[: bundle.manifest.stages.retrieval.interests]:
        mine = [row for row in allowed if bundle.ads.fields[row, 0] == value]
        found |= set(sorted(mine, key=lambda row: -bundle.ads.qscores[row])[:10])
    found = set(list(found)[:keep])
    products = bundle.cells.centroids @ query(seed)
    for cell in np.argsort(-products):
        for row in range(bundle.cells.offsets[cell], bundle.cells.offsets[cell + 1]):
            if len(found) < keep and row in allowed:
                found.add(row)
    return found


@pytest.mark.parametrize("keep", [40, 100, 200, 299, 300, 1000])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.0])
def test_interests_and_the_best_cells_fill_the_stage(bundle: Bundle, keep: int, share: float) -> None:
    for seed in range(5):
        bitmap, allowed = some(share, seed)
        found = retrieve(bundle, query(seed), HISTORIES, keep, None if share == 1.0 else bitmap)
        rows = [*found.matched.rows().tolist(), *found.others.tolist()]
        assert len(set(rows)) == len(rows) == found.ads == min(keep, len(allowed)), "none twice, none missing"
        assert set(rows) == slow(bundle, seed, keep, allowed)


@pytest.mark.parametrize("n", [1, 30, 90, 200])
def test_the_worthiest_are_those_a_full_sort_gives(bundle: Bundle, n: int) -> None:
    for seed in range(10):
        bitmap, _ = some(0.7, seed)
        for allowed in (None, bitmap):
            found = retrieve(bundle, query(seed), HISTORIES, 90, allowed)
            rows = np.concatenate((found.matched.rows(), found.others))
            worth = bundle.ads.qscores[rows] * bundle.ads.bids[rows]
            expected = rows[np.lexsort((rows, -worth))[:n]]
            assert worthiest(bundle, found, n).tolist() == sorted(expected.tolist())


def test_interests_fill_at_most_half(bundle: Bundle) -> None:
    found = retrieve(bundle, query(0), HISTORIES, 12, None)
    assert len(found.others) <= 6
    assert found.ads == 12


def test_a_query_that_is_no_number_still_gives_ads(bundle: Bundle) -> None:
    found = retrieve(bundle, np.full(DIMENSION, np.nan, dtype=np.float32), HISTORIES, 50, None)
    assert found.ads == 50


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
    best = rows[np.argsort(-bundle.ads.qscores[rows])]
    assert found.tolist() == best[:10].tolist()
    assert interest_rows(bundle, histories, None, 3).tolist() == best[:3].tolist()
    for allowed in (best[::2], best[-1:], best[40:], best[:0]):
        found = interest_rows(bundle, histories, of_rows(allowed, ADS + 2), 100)
        assert found.tolist() == allowed[:10].tolist(), "however far down the list"
