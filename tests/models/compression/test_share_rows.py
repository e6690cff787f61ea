"""Steps that let ids share rows: sizes, starts, refusals; the subject stays as it was."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from models.compression.recipe import RowStep, Step
from models.compression.share_rows import rows_of, share_rows
from models.compression.sizes import sizes_of
from models.compression.subject import CompressionError, Subject
from models.data.prepared import PreparedData
from models.networks.network import lookups
from models.train import train_one
from tests.models.compression.small_subject import material, shop, subject_of
from tests.models.growing import config

STEP: TypeAdapter[Any] = TypeAdapter(Step)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedData, Subject, Path]:
    folder = tmp_path_factory.mktemp("rows")
    data = shop(folder)
    return data, subject_of(data, folder, embedding_l2=0.01), folder


def step(**content: Any) -> RowStep:
    found = STEP.validate_python({"tables": ["ad"]} | content)
    assert isinstance(found, RowStep)
    return found


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ({"step": "cut", "rows": 5}, 5),
        ({"step": "hash", "ratio": 4}, 5),
        ({"step": "multi_hash", "rows": 6, "hashes": 3}, 6),
        ({"step": "quotient_remainder", "rows": 4, "combine": "sum"}, 4 + 5),
        ({"step": "quotient_remainder", "rows": 4}, 4 + 5),
    ],
)
def test_a_table_of_20_ads_gets_smaller(world: Any, content: dict[str, Any], rows: int) -> None:
    data, subject, folder = world
    before = {name: value.clone() for name, value in subject.network.state_dict().items()}
    found = share_rows(step(**content), subject, material(data, folder, subject))
    table = found.network.arena.apart("ad")
    assert table is not None
    assert table.size == 22
    assert table.weight.shape == (2 + rows, 4)
    saved = sizes_of(subject.network).table_bytes - sizes_of(found.network).table_bytes
    remap = 22 if content["step"] == "cut" else 0
    assert saved == (22 - (2 + rows)) * 16 - remap
    for name, value in subject.network.state_dict().items():
        assert torch.equal(value, before[name])
        if name != "arena.weight":
            assert torch.equal(found.network.state_dict()[name], value)
    for each, start in found.network.arena.starts.items():
        count, was = found.network.arena.fields[each].size, subject.network.arena.starts[each]
        rows_now = found.network.arena.weight[start + 1 : start + count]
        assert torch.equal(rows_now, subject.network.arena.weight[was + 1 : was + count])


def test_the_same_configuration_is_trained_from_scratch(world: Any, tmp_path: Path) -> None:
    data, subject, folder = world
    found = share_rows(step(step="cut", min_count=20), subject, material(data, folder, subject))
    table = found.network.arena.apart("ad")
    assert table is not None
    counts = lookups(subject.network, data)["ad"]
    assert table.config.rows == int((counts[2:] >= 20).sum())
    model = found.model.model_dump(mode="json")
    train_one(config(model, embedding_l2=0.01), data, tmp_path / "scratch", seed=1, progress=False)
    state = torch.load(tmp_path / "scratch/best.pt", weights_only=True)
    assert torch.equal(state["arena.tables.table_ad.remap"], table.remap)
    assert state["arena.tables.table_ad.weight"][0].abs().sum() == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"step": "hash", "rows": 3, "tables": ["brnd"]}, "step hash: there is no table 'brnd', known: city, "),
        ({"step": "hash", "rows": 21}, "step hash: table 'ad' has 20 known ids, 21 rows were asked for"),
        ({"step": "cut", "min_count": 10**6}, "step cut: table 'ad' has 20 known ids, 0 rows were asked for"),
        ({"step": "quotient_remainder", "ratio": 10}, "has 20 known ids and needs 9 rows at least, a ratio of 10"),
    ],
)
def test_refusals(world: Any, content: dict[str, Any], message: str) -> None:
    data, subject, folder = world
    with pytest.raises(CompressionError, match=message):
        share_rows(step(**content), subject, material(data, folder, subject))


def test_rows_are_shared_once(world: Any) -> None:
    data, subject, folder = world
    once = share_rows(step(step="hash", rows=9), subject, material(data, folder, subject))
    with pytest.raises(CompressionError, match="rows of table 'ad' are shared already, by hash"):
        share_rows(step(step="cut", rows=3), once, material(data, folder, subject))


def test_one_size_is_given() -> None:
    with pytest.raises(ValidationError, match="exactly one of rows, ratio is needed, given are rows, ratio"):
        step(step="hash", rows=3, ratio=10)


def test_a_ratio_is_of_all_rows() -> None:
    counts = torch.zeros(1_000_002)
    rows = rows_of(step(step="quotient_remainder", ratio=100), counts, "ad")
    assert rows + -(-1_000_000 // rows) in range(9_990, 10_002)
    assert rows_of(step(step="hash", ratio=100), counts, "ad") == 10_000
