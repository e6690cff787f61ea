"""Tables of fewer columns are the best approximation on what is looked up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.compression.carrying import values_of
from models.compression.narrow_tables import decomposed, narrow_tables, rank
from models.compression.recipe import NarrowTables
from models.compression.sizes import sizes_of
from models.compression.subject import CompressionError
from models.evaluation import network_scorer, score_split
from tests.models.compression.small_subject import material, shop, subject_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("narrow")
    data = shop(folder)
    return data, subject_of(data, folder), folder


def step(**content: Any) -> NarrowTables:
    return NarrowTables.model_validate({"step": "narrow_tables"} | content)


def test_it_is_the_singular_value_decomposition() -> None:
    random = np.random.default_rng(0)
    rows, weights = random.normal(size=(40, 6)), random.integers(0, 9, 40)
    values, vectors = decomposed(torch.from_numpy(rows), torch.from_numpy(weights.astype(float)))
    root = np.sqrt(weights)[:, None] * rows
    u, s, v = np.linalg.svd(root, full_matrices=False)
    np.testing.assert_allclose(values.numpy(), s**2, rtol=1e-9)
    basis = vectors[:, :2].numpy()
    np.testing.assert_allclose(root @ basis @ basis.T, (u[:, :2] * s[:2]) @ v[:2], atol=1e-9)


def test_full_rank_changes_no_score(world: Any) -> None:
    data, subject, folder = world
    found = narrow_tables(step(tables=["ad"], dimension=4), subject, material(data, folder, subject))
    one, two = (score_split(network_scorer(each.network), data, "valid").scores for each in (subject, found))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_rows_and_expansion_are_the_nearest(world: Any) -> None:
    data, subject, folder = world
    found = narrow_tables(step(tables=["ad"], dimension=2, weighted=False), subject, material(data, folder, subject))
    table = found.network.arena.apart("ad")
    assert table is not None
    assert table.expansion is not None
    wanted = values_of(subject.network.arena, "ad").numpy()
    u, s, v = np.linalg.svd(wanted, full_matrices=False)
    with torch.no_grad():
        np.testing.assert_allclose(table(torch.arange(22)).numpy(), (u[:, :2] * s[:2]) @ v[:2], atol=1e-5)
    saved = sizes_of(subject.network).table_bytes - sizes_of(found.network).table_bytes
    assert saved == 22 * 16 - (22 * 8 + 2 * 4 * 4)


def test_tables_that_would_not_be_smaller_are_left_alone(world: Any) -> None:
    data, subject, folder = world
    found = narrow_tables(step(dimension=3), subject, material(data, folder, subject))
    assert set(found.embedded.tables) == {"ad", "brand"}, "3 · (n + 4) < 4 · n from 13 rows on"


def test_after_shared_rows(world: Any) -> None:
    from models.compression.share_rows import share_rows
    from tests.models.compression.test_share_rows import step as rows_step

    data, subject, folder = world
    hashed = share_rows(rows_step(step="hash", rows=15), subject, material(data, folder, subject))
    found = narrow_tables(step(tables=["ad"], dimension=2), hashed, material(data, folder, subject))
    assert found.embedded.tables["ad"].model_dump(exclude_defaults=True) == {
        "method": "hash",
        "rows": 15,
        "dimension": 2,
    }
    table = found.network.arena.apart("ad")
    assert table is not None
    assert table.weight.shape == (17, 2)


def test_rules_of_the_rank() -> None:
    values = torch.tensor([8.0, 1.0, 1.0, 0.0])
    assert rank(step(kept=0.7), values, 1.0, 4) == 1
    assert rank(step(kept=0.85), values, 1.0, 4) == 2
    assert rank(step(kept=0.95), values, 1.0, 4) == 3
    assert rank(step(popularity=0.5), values, 1 / 4, 16) == 8
    assert rank(step(popularity=2.0), values, 1 / 100, 16) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tables": ["brnd"], "dimension": 2}, "there is no table 'brnd', known: city, "),
        ({"dimension": 5}, "dimension is 5, the embeddings have 4"),
        ({"tables": ["scene"], "dimension": 3}, "table 'scene' of 4 x 4 would not be smaller with dimension 3"),
    ],
)
def test_refusals(world: Any, content: dict[str, Any], message: str) -> None:
    data, subject, folder = world
    with pytest.raises(CompressionError, match=message):
        narrow_tables(step(**content), subject, material(data, folder, subject))


def test_one_rule_is_given(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exactly one of dimension, kept, popularity is needed, given are None"):
        step()
