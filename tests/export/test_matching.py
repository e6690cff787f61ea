"""Posting lists hold each ad once, the worthiest first."""

from pathlib import Path

import numpy as np

from export.matching import write_postings
from tests.models.world import SCHEMA, random_ads


def test_postings(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    fields = np.vstack([np.zeros((2, SCHEMA.ad.id_columns)), random_ads(200, random)]).astype(np.int32)
    qscores = random.random(202).astype(np.float32)
    write_postings(SCHEMA, "tags", fields, qscores, tmp_path)
    rows, offsets = np.load(tmp_path / "tags.rows.npy"), np.load(tmp_path / "tags.offsets.npy")
    assert offsets[2] == 0, "neither padding nor the unknown have a list"
    for value in range(2, 9):
        listed = rows[offsets[value] : offsets[value + 1]]
        assert set(listed.tolist()) == {r for r in range(2, 202) if value in fields[r, 1:4]}
        assert np.all(np.diff(qscores[listed]) <= 0)
