"""Tables in fewer bytes: the weights become what is served, the original stays, and training goes on behind it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from bundle.precision import Stored
from bundle.rounding import pack, quantise
from export.request_graph import serving_graph
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from models.compression.recipe import Values
from models.compression.sizes import sizes_of
from models.compression.subject import CompressionError, Material, Subject
from models.compression.values import values
from models.config import TrainConfig
from models.networks.config import FmConfig, GwenConfig, TableConfig
from models.networks.registry import build
from models.networks.rounding import rounded
from tests.models.networks.small import SMALL, small
from tests.models.world import SCHEMA, random_batch

MATERIAL: Any = None
"""The step reads nothing but the network."""


def subject(name: str = "din") -> Subject:
    config = TrainConfig.model_validate({"name": name, "dataset": "d.yaml", "model": SMALL[name].model_dump()})
    return Subject(config, small(name))


def taken(tables: Any, of: Subject) -> Subject:
    material: Material = MATERIAL
    return values(Values(step="values", tables=tables), of, material)


@pytest.mark.parametrize("name", ["din", "deepfm", "wide-deep", "dssm"])
@pytest.mark.parametrize("stored", ["fp16", "int8", "int4"])
def test_weights_are_rounded_and_nothing_else(name: str, stored: Stored) -> None:
    of = subject(name)
    before = {key: value.clone() for key, value in of.network.state_dict().items()}
    made = taken(stored, of)
    after = made.network.state_dict()
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert torch.equal(of.network.state_dict()[key], value), "the original is left alone"
        if key != "arena.weight":
            assert torch.equal(after[key], value)
    assert torch.equal(after["arena.weight"], rounded(before["arena.weight"], stored))
    assert not torch.equal(after["arena.weight"], before["arena.weight"])
    assert not after["arena.weight"][0].any()
    assert of.embedded.tables == {}
    assert made.embedded.tables == dict.fromkeys(made.network.arena.starts, TableConfig(values=stored))
    assert torch.equal(taken(stored, made).network.arena.weight, made.network.arena.weight), "twice is once"


def test_the_network_rounds_weights_that_training_moves() -> None:
    made = taken("int4", subject())
    batch = random_batch(3, 4, 6)
    with torch.no_grad():
        before = made.network(batch)
        made.network.arena.weight[1:] += 1e-4 * torch.randn_like(made.network.arena.weight[1:])
        near = made.network(batch)
        made.network.arena.weight.copy_(rounded(made.network.arena.weight, "int4"))
        assert torch.equal(made.network(batch), near), "it scores as what would be served, whatever the weights hold"
        assert not torch.equal(before, near)


def test_some_tables_are_chosen_by_name() -> None:
    of = subject()
    made = taken({"ad": "int4", "buckets:price": "int8"}, of)
    assert made.network.arena.values["ad"] == "int4"
    assert made.network.arena.values["city"] == "fp32"
    assert made.embedded.tables.keys() == {"ad", "buckets:price"}
    more = taken({"ad": "int8"}, made)
    assert more.embedded.tables == {"ad": TableConfig(values="int8"), "buckets:price": TableConfig(values="int8")}


@pytest.mark.parametrize(("name", "stored"), [("din", "fp32"), ("din", "int4"), ("gwen", "fp16"), ("gwen", "int8")])
def test_the_graph_has_exactly_the_bytes_and_codes(name: str, stored: Stored, tmp_path: Path) -> None:
    made = taken(stored, subject(name))
    inputs = common_inputs(SCHEMA) | candidate_inputs(SCHEMA)
    export_graph(serving_graph(made.network), inputs, ["logits"], tmp_path / "graph.onnx")
    arrays = {
        each.name.rsplit("arena.", 1)[1]: numpy_helper.to_array(each)
        for each in onnx.load(str(tmp_path / "graph.onnx")).graph.initializer
        if "arena." in each.name
    }
    assert sum(each.nbytes for each in arrays.values()) == sizes_of(made.network).table_bytes
    parts = ("codes", "scales") if stored in ("int8", "int4") else ("codes",)
    assert arrays.keys() == {f"forms.{stored}.{part}" for part in parts}
    if stored == "int4":
        arena, place = made.network.arena, 0
        for table, field in arena.fields.items():
            first = arena.starts[table] + 1
            codes, scales = quantise(arena.weight.detach()[first : first + field.size - 1].numpy(), "int4")
            np.testing.assert_array_equal(arrays["forms.int4.codes"][place + 1 : place + field.size], pack(codes))
            np.testing.assert_array_equal(arrays["forms.int4.scales"][place + 1 : place + field.size, 0], scales)
            place += field.size


def test_tables_of_fewer_rows_and_columns_are_rounded_and_stored_so(tmp_path: Path) -> None:
    tables = {"ad": {"method": "hash", "rows": 9}, "tags": {"dimension": 3}, "tab": {"method": "cut", "rows": 2}}
    model = SMALL["fm"].model_dump() | {"tables": tables}
    config = TrainConfig.model_validate({"name": "fm", "dataset": "d.yaml", "model": model})
    assert isinstance(config.model, FmConfig)
    torch.manual_seed(1)
    of = Subject(config, build(config.model, SCHEMA).eval())
    made = taken("int4", of)
    before, after = of.network.state_dict(), made.network.state_dict()
    for name in ("ad", "tags", "tab"):
        key = f"arena.tables.table_{name}.weight"
        assert torch.equal(after[key], rounded(before[key], "int4"))
        assert not torch.equal(after[key], before[key])
    batch = random_batch(5, 4, 7)
    with torch.no_grad():
        exact = made.network(batch)
        made.network.load_state_dict(before)
        assert torch.equal(made.network(batch), exact), "it rounds what it reads"
    export_graph(serving_graph(made.network), common_inputs(SCHEMA) | candidate_inputs(SCHEMA), ["logits"],
                 tmp_path / "graph.onnx")  # fmt: skip
    arrays = [
        numpy_helper.to_array(each)
        for each in onnx.load(str(tmp_path / "graph.onnx")).graph.initializer
        if "arena." in each.name and "first_order" not in each.name
    ]
    remap = 5  # tab has 5 ids, a byte each
    assert sum(each.nbytes for each in arrays) + remap == sizes_of(made.network).table_bytes


@pytest.mark.parametrize("stored", ["int8", "int4"])
def test_a_row_that_would_grow_is_refused(stored: Stored) -> None:
    config = GwenConfig(kind="gwen", embedding=1, hidden=(4,))
    narrow = replace(subject("gwen"), network=build(config, SCHEMA))
    with pytest.raises(
        CompressionError, match=f"step values: a row of 1 in table '.*' takes 5 bytes in {stored}, 4 in"
    ):
        taken(stored, narrow)


def test_what_cannot_be_stored_is_named() -> None:
    of = subject()
    with pytest.raises(CompressionError, match=r"there are no tables \['adds'\], known: ad, buckets:price, city, tab"):
        taken({"adds": "int8"}, of)
    with pytest.raises(CompressionError, match="a lr has no embeddings"):
        taken("int8", subject("lr"))
    first = of.network.arena.starts["ad"]
    with torch.no_grad():
        of.network.arena.weight[first + 2, 0] = 1e5
    with pytest.raises(CompressionError, match=r"step values: table 'ad' holds 1e\+05, fp16 ends at 65504"):
        taken("fp16", of)
    with torch.no_grad():
        of.network.arena.weight[first + 2, 0] = torch.nan
    with pytest.raises(CompressionError, match="step values: table 'ad' holds values that are not finite"):
        taken("int8", of)
