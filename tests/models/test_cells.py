"""Cells of near ads: k-means against what it is for."""

import numpy as np
import numpy.typing as npt
import pytest

from bundle.cell_files import arrange
from models import cells
from models.cells import cell_of_ads


def clustered(ads: int, clusters: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Catalogue vectors float32[ads + 2, 8] around a few points, and the point of each ad."""
    random = np.random.default_rng(0)
    points = random.normal(size=(clusters, 8)) * 5
    of = random.integers(0, clusters, ads)
    vectors = points[of] + random.normal(size=(ads, 8))
    return np.concatenate([np.full((2, 8), 100), vectors]).astype(np.float32), of


def test_ads_of_a_cell_are_near_each_other() -> None:
    vectors, of = clustered(2_000, 20)
    found = cell_of_ads(vectors)
    assert len(np.unique(found)) > 2_000 / cells.SMALLEST * 0.8
    pure = [len(set(of[found == cell].tolist())) == 1 for cell in np.unique(found)]
    assert np.mean(pure) > 0.9, "hardly a cell holds ads of two clusters"


def test_matching_by_cells_finds_nearly_what_comparing_all_would() -> None:
    vectors, _ = clustered(4_000, 50)
    order, made = arrange(vectors, np.ones(4_002, dtype=np.float32), cell_of_ads(vectors))
    random = np.random.default_rng(1)
    recalls = []
    for _ in range(20):
        query = random.normal(size=8).astype(np.float32)
        nearest = set((np.argsort(-(vectors[2:] @ query))[:100] + 2).tolist())
        recalls.append(len(nearest & set(order[made.nearest(query, 400).rows()].tolist())) / 100)
    assert np.mean(recalls) > 0.97


def test_large_catalogues_have_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "MOST", 30)
    monkeypatch.setattr(cells, "CHUNK", 999)
    found = cell_of_ads(clustered(5_000, 40)[0])
    assert 25 < len(np.unique(found)) <= 30
    assert np.bincount(found).sum() == 5_000


def test_the_same_seed_gives_the_same_cells() -> None:
    vectors, _ = clustered(1_000, 10)
    assert cell_of_ads(vectors, 3).tolist() == cell_of_ads(vectors, 3).tolist()
    assert cell_of_ads(vectors, 3).tolist() != cell_of_ads(vectors, 4).tolist()


@pytest.mark.parametrize("ads", [0, 1, 7, 8])
def test_a_handful_of_ads(ads: int) -> None:
    found = cell_of_ads(clustered(ads, 2)[0])
    assert len(found) == ads
    assert len(np.unique(found)) == min(ads, 1 if ads < 8 else 2)
