"""A useless field is found out; what is left scores as before with the field silent, in every network."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from models.compression.gates import gated, silenced
from models.compression.recipe import SelectFields
from models.compression.select_fields import lacking, select_fields, without
from models.compression.subject import CompressionError, Subject
from models.config import TrainConfig
from models.data.prepare import prepare
from models.networks.config import EmbeddedConfig
from models.networks.registry import build
from tests.models.compression.small_subject import GWEN, material, subject_of
from tests.models.growing import description, write_shop
from tests.models.networks.small import SMALL, small
from tests.models.world import SCHEMA, random_batch

EMBEDDED = [name for name, config in SMALL.items() if isinstance(config, EmbeddedConfig) and name != "cold-some"]


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_network_without_fields_is_the_one_with_silent_fields(name: str) -> None:
    old, batch, leaving = small(name), random_batch(6, 4, 7), {"user.city", "clicks.tags", "ad.ad"}
    before = {n: v.clone() for n, v in old.state_dict().items()}
    config = TrainConfig.model_validate({"name": name, "dataset": "d.yaml", "model": SMALL[name].model_dump()})
    model = lacking(Subject(config, old), tuple(leaving))
    new = build(model, SCHEMA).eval()
    new.load_state_dict(without(old, model, leaving))
    with torch.no_grad(), gated(old, silenced(leaving)):
        wanted = old(batch)
    with torch.no_grad():
        torch.testing.assert_close(new(batch), wanted, rtol=0, atol=1e-5)
        assert (old(batch) - wanted).abs().max() > 1e-3
    assert all(torch.equal(v, before[n]) for n, v in old.state_dict().items())
    assert sum(p.numel() for p in new.parameters()) < sum(p.numel() for p in old.parameters())


def test_a_planted_useless_field_is_worth_the_least(tmp_path: Path) -> None:
    """Clicks depend on the ad alone; `noise` is drawn anew for every row."""
    raw = write_shop(tmp_path / "raw")
    log = pl.read_parquet(raw / "log.parquet")
    random = np.random.default_rng(1)
    log = log.with_columns(noise=pl.Series([f"n{each}" for each in random.integers(0, 9, len(log))]))
    log.write_parquet(raw / "log.parquet")
    context = [{"column": "scene"}, {"column": "noise"}, {"column": "hour", "kind": "number"}]
    spec = description(2_000, None, context_features=context)
    data = prepare(spec, raw, tmp_path / "data", partitions=2, progress=False)
    subject = subject_of(data, tmp_path, GWEN, epochs=6)
    step = SelectFields(step="select_fields", threshold=0.5, strength=1e-3, steps=150, learning_rate=0.1)
    given = material(data, tmp_path, subject)
    found = select_fields(step, subject, given)
    assert "context.noise" in found.embedded.dropped_fields
    assert "ad.ad" not in found.embedded.dropped_fields
    assert {"clicks.ad", "clicks.brand", "clicks.words"} - set(found.embedded.dropped_fields), "one of them stays"
    assert "noise" not in found.network.arena.fields
    worth = (given.folder / "fields.json").read_text()
    assert worth.index('"ad.ad"') < worth.index('"context.noise"')
    assert select_fields(step, subject, given).embedded == found.embedded, "the same seed, the same fields"

    with pytest.raises(CompressionError, match="keep is 11, the network reads 11 fields"):
        select_fields(SelectFields(step="select_fields", keep=11), subject, given)
    with pytest.raises(CompressionError, match=r"all fields are at 0\.\d+ or more, threshold is 0.01"):
        select_fields(step.model_copy(update={"threshold": 0.01, "steps": 1}), subject, given)


def test_one_rule_is_given() -> None:
    with pytest.raises(ValueError, match="exactly one of keep, threshold is needed, they are None and None"):
        SelectFields(step="select_fields")
