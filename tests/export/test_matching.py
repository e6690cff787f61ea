"""The index returns catalogue rows, and posting lists hold each ad once, best Qscore first."""

from pathlib import Path

import faiss
import numpy as np

from export import matching
from export.matching import write_index, write_postings
from tests.models.world import SCHEMA, random_ads


def test_small_catalogues_are_searched_exactly_and_labels_are_rows(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    vectors[:2] = 100  # the reserved rows must never be found
    write_index(vectors, tmp_path / "index")
    query = np.random.default_rng(1).normal(size=8).astype(np.float32)
    _, found = faiss.read_index(str(tmp_path / "index")).search(query[None], 20)
    expected = 2 + np.argsort(-(vectors[2:] @ query))[:20]
    assert found[0].tolist() == expected.tolist()


def test_large_catalogues_get_an_inverted_file_with_good_recall(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = matching.EXACT + 3
    vectors = random.normal(size=(rows, 8)).astype(np.float32)
    write_index(vectors, tmp_path / "index")
    index = faiss.read_index(str(tmp_path / "index"))
    faiss.extract_index_ivf(index).nprobe = 64
    queries = random.normal(size=(20, 8)).astype(np.float32)
    _, found = index.search(queries, 100)
    recalls = [
        len(np.intersect1d(found[i], 2 + np.argpartition(-(vectors[2:] @ query), 100)[:100])) / 100
        for i, query in enumerate(queries)
    ]
    assert found.min() >= 2
    assert np.mean(recalls) > 0.8


def test_an_empty_catalogue_has_an_index_too(tmp_path: Path) -> None:
    write_index(np.zeros((2, 4), dtype=np.float32), tmp_path / "index")
    assert faiss.read_index(str(tmp_path / "index")).ntotal == 0


def test_postings(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    fields = np.vstack([np.zeros((2, 5)), random_ads(200, random)]).astype(np.int32)
    qscores = random.random(202).astype(np.float32)
    write_postings(SCHEMA, "tags", fields, qscores, tmp_path)
    rows, offsets = np.load(tmp_path / "tags.rows.npy"), np.load(tmp_path / "tags.offsets.npy")
    assert offsets[2] == 0, "neither padding nor the unknown have a list"
    for value in range(2, 9):
        listed = rows[offsets[value] : offsets[value + 1]]
        assert set(listed.tolist()) == {r for r in range(2, 202) if value in fields[r, 1:4]}
        assert np.all(np.diff(qscores[listed]) <= 0)
