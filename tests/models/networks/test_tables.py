"""Tables of fewer rows or columns: their rows by hand, and every network that has embeddings works with them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper

from bundle.schema import FIRST_KNOWN
from export.request_graph import serving_graph
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from models.config import ConfigError, Pretraining, TrainConfig
from models.continuing import base_of, continue_network
from models.data.batches import batches
from models.embedding_l2 import EmbeddingL2
from models.networks.config import EmbeddedConfig, GwenConfig, QscoreConfig, TableConfig
from models.networks.cost import cost_of
from models.networks.deepfm import DeepFm
from models.networks.dicm import Dicm
from models.networks.layers import Arena, module_name
from models.networks.merging import merged
from models.networks.network import Network, lookups
from models.networks.registry import build
from models.networks.rounding import rounded
from models.networks.tables import HASHES, PRIME, CompressedTable, integer_type, kept_rows
from models.preflight import require_fields
from models.pretraining import pretrain
from tests.export.test_din_graph import feeds, request
from tests.models.growing import GWEN, early, late, trained, write_shop
from tests.models.networks.small import SMALL
from tests.models.world import ADS, SCHEMA, image_vectors, random_batch, shake

TABLES: dict[str, dict[str, Any]] = {
    "ad": {"method": "quotient_remainder", "rows": 9, "dimension": 3, "values": "int8"},
    "tags": {"method": "multi_hash", "rows": 5, "hashes": 3, "values": "int4"},
    "city": {"method": "cut", "rows": 6, "dimension": 2},
    "tab": {"method": "hash", "rows": 2},
    "buckets:price": {"dimension": 2, "values": "fp16"},
}
SOME: dict[str, dict[str, Any]] = {"tags": TABLES["tags"], "ad": {"values": "int4"}, "city": {"values": "fp16"}}
"""The ad has columns of the array on both sides of a table that stands beside it."""
EMBEDDED = [name for name, config in SMALL.items() if isinstance(config, EmbeddedConfig)]
KINDS = list({SMALL[name].kind: name for name in reversed(EMBEDDED)}.values())
"""One of each."""


def compressed(name: str, dropped: tuple[str, ...] = (), tables: dict[str, dict[str, Any]] = TABLES) -> Network:
    """A small network with smaller tables, of random weights."""
    torch.manual_seed(1)
    read = {table: TableConfig.model_validate(each) for table, each in tables.items()}
    config = SMALL[name].model_copy(update={"tables": read, "dropped_fields": dropped})
    network = build(type(config).model_validate(config.model_dump()), SCHEMA)
    shake(network, 1)
    if isinstance(network, Dicm):
        network.take(image_vectors())
    return network.eval()


def table(**config: Any) -> CompressedTable:
    torch.manual_seed(3)
    made = CompressedTable("ad", ADS, 4, 0.5, TableConfig.model_validate(config))
    with torch.no_grad():
        made.weight[1] = torch.arange(made.weight.shape[1]) + 1.0
    return made


def test_a_hash_is_a_multiplication_modulo_a_prime() -> None:
    made = table(method="hash", rows=7)
    a, b = HASHES[0]
    for i in range(FIRST_KNOWN, ADS):
        row = 2 + (a * (i - 2) + b) % PRIME % 7
        assert torch.equal(made(torch.tensor(i)), made.weight[row])
    assert len(made.weight) == 9


def test_several_hashes_are_summed() -> None:
    made = table(method="multi_hash", rows=7, hashes=3)
    for i in (2, 17, 49):
        rows = [2 + (a * (i - 2) + b) % PRIME % 7 for a, b in HASHES[:3]]
        torch.testing.assert_close(made(torch.tensor(i)), made.weight[rows].sum(0))


@pytest.mark.parametrize("combine", ["sum", "product"])
def test_quotient_and_remainder(combine: str) -> None:
    made = table(method="quotient_remainder", rows=10, combine=combine)
    assert len(made.weight) == 2 + 5 + 10, "48 ids: 5 quotients"
    seen = set()
    for i in range(FIRST_KNOWN, ADS):
        q, r = made.weight[2 + (i - 2) // 10], made.weight[7 + (i - 2) % 10]
        torch.testing.assert_close(made(torch.tensor(i)), q + r if combine == "sum" else (1 + q) * r)
        seen.add(tuple(made.rows(torch.tensor(i)).tolist()))
    assert len(seen) == ADS - FIRST_KNOWN, "no two ids share both rows"


@pytest.mark.parametrize("config", [*TABLES.values(), {"method": "quotient_remainder", "rows": 4, "combine": "sum"}])
def test_padding_is_zero_and_the_unknown_has_its_row(config: dict[str, Any]) -> None:
    made = table(**config)
    assert made(torch.tensor([0])).abs().sum() == 0
    row = rounded(made.weight[1], made.config.values)
    own = row if made.expansion is None else row @ made.expansion
    torch.testing.assert_close(made(torch.tensor(1)), own)
    made(torch.arange(ADS)).sum().backward()
    assert made.weight.grad is not None
    assert made.weight.grad[0].abs().sum() == 0, "padding never learns"
    assert made.weight.grad[1].abs().sum() > 0


def test_a_cut_keeps_the_most_frequent() -> None:
    rows = kept_rows(torch.tensor([99, 98, 5, 1, 7, 5, 0]), 3)
    assert rows.tolist() == [0, 1, 2, 1, 3, 4, 1]
    assert rows.dtype == torch.uint8


def test_the_remap_is_of_the_smallest_type_and_counted() -> None:
    for largest, dtype in ((255, torch.uint8), (256, torch.int16), (32_768, torch.int32)):
        assert integer_type(largest) == dtype
    assert table(method="cut", rows=6).stored_bytes() == (2 + 6) * 4 * 4 + ADS
    assert table(method="hash", rows=6).stored_bytes() == (2 + 6) * 4 * 4
    assert table(dimension=3).stored_bytes() == ADS * 3 * 4 + 3 * 4 * 4


def test_an_expansion_widens_rows() -> None:
    made = table(dimension=3)
    assert made.expansion is not None
    torch.testing.assert_close(made(torch.tensor([5, 7])), made.weight[[5, 7]] @ made.expansion)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"brand": {"dimension": 2}}, "there is no table 'brand', known: city, tab, ad, tags, buckets:price"),
        ({"ad": {"method": "hash", "rows": 49}}, "'ad' has 48 known ids, rows is 49"),
        ({"ad": {"dimension": 5}}, "the embeddings' dimension is 4, that of 'ad' is 5"),
    ],
)
def test_what_does_not_fit_is_refused(tables: dict[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compressed("gwen", tables=tables)


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        (("user.age",), "there is no field 'user.age', known: user.city, context.tab, ad.ad"),
        (("clicks.ad", "clicks.tags"), "nothing would be left of 'clicks'"),
    ],
)
def test_fields_that_cannot_be_dropped(dropped: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compressed("gwen", dropped, {})


def test_method_and_rows_belong_together() -> None:
    with pytest.raises(ValueError, match="method and rows belong together, they are hash and None"):
        TableConfig(method="hash")


@pytest.mark.parametrize("tables", [TABLES, SOME], ids=["all", "some"])
@pytest.mark.parametrize("name", EMBEDDED)
def test_every_network_looks_up_smaller_tables_as_if_they_were_whole(name: str, tables: dict[str, Any]) -> None:
    """A plain network whose rows are the vectors of the compressed one gives the same logits."""
    small, batch = compressed(name, tables=tables), random_batch(5, 4, 7)
    plain = build(SMALL[name].model_copy(update={"tables": {}}), SCHEMA)
    if isinstance(plain, Dicm):
        plain.take(image_vectors())
    plain.eval()
    state = {n: v for n, v in small.state_dict().items() if n in plain.state_dict() and n != "arena.weight"}
    weight = torch.zeros_like(plain.arena.weight)
    for table_name, start in plain.arena.starts.items():
        found, size = small.arena.apart(table_name), plain.arena.fields[table_name].size
        if found is not None:
            rows = found(torch.arange(1, size))
        else:
            first = small.arena.starts[table_name] + 1
            rows = rounded(small.arena.weight[first : first + size - 1], small.arena.values[table_name])
        weight[start + 1 : start + size] = rows.detach()
    plain.load_state_dict(state | {"arena.weight": weight})
    with torch.no_grad():
        torch.testing.assert_close(small(batch), plain(batch), rtol=0, atol=1e-5)
        torch.testing.assert_close(merged(small)(batch), small(batch), rtol=0, atol=1e-5)


WITHOUT = {n: each for n, each in TABLES.items() if n not in ("city", "tab")}


@pytest.mark.parametrize(
    ("name", "dropped", "tables"),
    [*((name, ("clicks.tags", "user.city"), WITHOUT) for name in KINDS), ("din", (), SOME), ("gwen", (), SOME)],
)
def test_every_network_is_exported_with_smaller_tables(
    name: str, dropped: tuple[str, ...], tables: dict[str, Any], tmp_path: Path
) -> None:
    network = compressed(name, dropped, tables)
    inputs = common_inputs(SCHEMA) | candidate_inputs(SCHEMA)
    export_graph(serving_graph(network), inputs, ["logits"], tmp_path / "finerank.onnx")
    session = ort.InferenceSession(str(tmp_path / "finerank.onnx"), providers=["CPUExecutionProvider"])
    for length, real, candidates in ((1, 0, 2), (50, 50, 60), (9, 4, 33)):
        batch = request(length, real, candidates, seed=length)
        (found,) = session.run(None, {name: value.numpy() for name, value in feeds(batch).items()})
        with torch.no_grad():
            np.testing.assert_allclose(found, network(batch).numpy(), rtol=0, atol=1e-5)


def test_a_graph_stores_the_bytes_that_are_counted(tmp_path: Path) -> None:
    tables = {name: {key: v for key, v in each.items() if key != "dimension"} for name, each in TABLES.items()}
    network = compressed("gwen", (), tables)
    path = tmp_path / "finerank.onnx"
    export_graph(serving_graph(network), common_inputs(SCHEMA) | candidate_inputs(SCHEMA), ["logits"], path)
    graph = onnx.load(str(path)).graph
    arrays = [numpy_helper.to_array(each) for each in graph.initializer if "arena." in each.name]
    (remap,) = (numpy_helper.to_array(each) for each in graph.initializer if list(each.dims) == [20])
    arrays.append(remap)
    assert sum(each.nbytes for each in arrays) == network.arena.stored_bytes()
    assert sorted(each.shape for each in arrays if each.dtype == np.uint8) == [(7, 2), (20,)], (
        "int4 rows, and the remap"
    )


@pytest.mark.parametrize("name", [name for name in EMBEDDED if name != "cold-some"])
def test_every_row_and_expansion_learns(name: str) -> None:
    network = compressed(name).train()
    network(random_batch(200, 4, 7)).square().sum().backward()
    lazy = [name for name, p in network.arena.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    assert lazy == ["weight"], "the array: all tables stand beside it"


def test_a_narrow_field_needs_fewer_products() -> None:
    """GwEN: user 1 field, tab, two of a history and three of an ad; h = 8 units."""
    tables = {"city": {"dimension": 1}, "ad": {"dimension": 2}}
    whole, small = (cost_of(compressed("gwen", (), each)) for each in ({}, tables))
    assert whole.candidate - small.candidate == 8 * (4 - 2)
    assert whole.request - small.request == 8 * (4 - 1 + 4 - 2)


def test_a_dropped_field_is_not_stored() -> None:
    whole, small = (compressed("deepfm", dropped, {}) for dropped in ((), ("user.city", "ad.ad")))
    assert "city" in whole.arena.starts
    assert "city" not in small.arena.starts
    assert "ad" in small.arena.starts, "its history still has it"
    assert whole.arena.weight.shape[0] - small.arena.weight.shape[0] == 19
    first = {"user.city", "ad.ad"}
    assert isinstance(whole, DeepFm)
    assert isinstance(small, DeepFm)
    assert small.first_order.arena.starts.keys() == whole.first_order.arena.starts.keys() - first


def test_a_name_with_a_dot_is_a_module() -> None:
    assert module_name("a.b") == "table_a%2Eb"


def test_without_tables_the_arena_is_what_it_was() -> None:
    torch.manual_seed(5)
    arena = Arena(SCHEMA, 4, 0.1)
    torch.manual_seed(5)
    weight = torch.empty(1 + 19 + 4 + 49 + 8 + 3, 4).normal_(std=0.1)
    weight[[0, *(start + 1 for start in arena.starts.values())]] = 0
    assert torch.equal(arena.weight, weight)
    assert list(arena.state_dict()) == ["weight"]


def test_a_vocabulary_that_grew_is_refused(tmp_path: Path) -> None:
    raw = write_shop(tmp_path / "raw")
    data = early(raw, tmp_path / "early")
    model = GWEN | {"tables": {"ad": {"method": "hash", "rows": 5}}}
    earlier = trained(model, data, tmp_path / "run")
    assert not isinstance(earlier.config.model, QscoreConfig)
    grown = late(raw, tmp_path / "late", base_of(earlier))
    network = build(earlier.config.model, grown.schema)
    with pytest.raises(ConfigError, match=r"arena\.tables\.table_ad: its rows are those of ids, which changed"):
        continue_network(network, grown, earlier)
    plain = build(GwenConfig.model_validate(GWEN), data.schema)
    with pytest.raises(ConfigError, match=r"model\.tables: the earlier network has no rows like those of table 'ad'"):
        continue_network(plain, data, earlier)
    same = build(earlier.config.model, data.schema)
    continue_network(same, data, earlier)
    assert torch.equal(same.arena.compressed()[0].weight, earlier.network().arena.compressed()[0].weight)


def test_the_penalty_of_rows_that_are_shared(tmp_path: Path) -> None:
    """λ/2 Σ ‖w_j‖² / n_j over the rows that a batch reads, n_j the row's lookups in the training split."""
    data = early(write_shop(tmp_path / "raw"), tmp_path / "data")
    config = GwenConfig(kind="gwen", embedding=3, hidden=(4,), tables={"ad": TableConfig(method="hash", rows=4)})
    network = build(config, data.schema)
    table = network.arena.compressed()[0]
    l2 = EmbeddingL2(network, data, 0.5)
    counts = torch.zeros(6)
    for row, n in zip(table.rows(torch.arange(table.size))[:, 0].tolist(), lookups(network, data)["ad"], strict=True):
        counts[row] += n
    torch.testing.assert_close(l2.counts["ad"][1:], counts.clamp(min=1)[1:])
    batch = next(batches(data, "train", 50))
    whole = l2.penalty(batch)
    with torch.no_grad():
        table.weight.zero_()
    read = {
        int(row) for ids in (batch.ads[:, 0], batch.histories["clicks"][..., 0]) for row in table.rows(ids).flatten()
    }
    torch.manual_seed(1)
    weight = torch.randn(6, 3)
    without = l2.penalty(batch)
    with torch.no_grad():
        table.weight.copy_(weight)
    expected = sum(0.25 * weight[row].square().sum() / counts[row] for row in read - {0})
    torch.testing.assert_close(l2.penalty(batch) - without, torch.as_tensor(expected))
    assert whole > without


def test_what_is_refused_before_training_knows_no_rows_but_names_tables(tmp_path: Path) -> None:
    """The outline of a dataset has three values a field, more rows than that are the data's to judge."""
    spec = early(write_shop(tmp_path / "raw"), tmp_path / "data").prepared.spec
    model = GWEN | {"tables": {"ad": {"method": "hash", "rows": 40, "values": "int8"}}}
    config = {"name": "a", "dataset": "a.yaml", "model": model, "rocket": {"booster": model}}
    require_fields(TrainConfig.model_validate(config), spec, "a.yaml")
    config = {"name": "a", "dataset": "a.yaml", "model": GWEN | {"tables": {"ads": {"method": "hash", "rows": 40}}}}
    with pytest.raises(ConfigError, match=r"a\.yaml: model\.tables: there is no table 'ads'"):
        require_fields(TrainConfig.model_validate(config), spec, "a.yaml")
    config["model"] = GWEN | {"dropped_fields": ["ad.brands"]}
    with pytest.raises(ConfigError, match=r"a\.yaml: model\.dropped_fields: there is no field 'ad\.brands'"):
        require_fields(TrainConfig.model_validate(config), spec, "a.yaml")


def test_pretraining_needs_a_row_for_each_id(tmp_path: Path) -> None:
    data = early(write_shop(tmp_path / "raw"), tmp_path / "data")
    config = GwenConfig(kind="gwen", embedding=3, hidden=(4,), tables={"ad": TableConfig(method="hash", rows=4)})
    with pytest.raises(ConfigError, match="the ids of 'ad' have no rows of their own to start"):
        pretrain(build(config, data.schema), data, Pretraining(history="clicks", field="ad"))


def test_networks_that_share_embeddings_need_the_same_tables() -> None:
    booster = {"kind": "din", "embedding": 4, "tables": {"ad": {"method": "hash", "rows": 4}}}
    with pytest.raises(ValueError, match="both networks need the same tables and dropped_fields"):
        TrainConfig.model_validate(
            {
                "name": "a",
                "dataset": "a.yaml",
                "model": {"kind": "gwen", "embedding": 4},
                "rocket": {"booster": booster},
            }
        )
