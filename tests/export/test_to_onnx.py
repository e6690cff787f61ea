"""The interface of a written graph is the one asked for; sides without ids or numbers have no inputs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from bundle.golden import Common
from bundle.manifest import GraphSpec, TensorSpec
from bundle.schema import FeatureSchema, Side
from export.din_graph import DinServing
from export.query_graph import QueryGraph
from export.to_onnx import candidate_inputs, common_inputs, export_graph, tensors
from models.funnel import with_candidates
from models.networks.config import DinConfig, DqmConfig
from models.networks.din import Din
from models.networks.dqm import Dqm
from tests.models.world import SCHEMA, random_ads, random_batch, shake

Feeds = dict[str, Tensor]


class Weighted(nn.Module):
    """Sum over the behaviours of their first id, times each candidate's number."""

    def forward(self, feeds: Feeds) -> Tensor:
        return feeds["history_clicks"][:, 0].sum().to(torch.float32) * feeds["ad_numbers"][:, 0]


class Deaf(nn.Module):
    """Reads one of the two inputs it is given."""

    def forward(self, feeds: Feeds) -> Tensor:
        return feeds["ad_numbers"][:, 0] * 2.0


INPUTS: dict[str, tuple[str | int, ...]] = {"history_clicks": ("length_clicks", 2), "ad_numbers": ("ads", 1)}


def run(path: Path, feeds: dict[str, Any]) -> Any:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)


def test_the_interface_is_read_back(tmp_path: Path) -> None:
    spec = export_graph(Weighted(), INPUTS, ["logits"], tmp_path / "w.onnx")
    assert spec == GraphSpec(
        file="w.onnx",
        inputs=(
            TensorSpec(name="history_clicks", dtype="int64", shape=("length_clicks", 2)),
            TensorSpec(name="ad_numbers", dtype="float32", shape=("ads", 1)),
        ),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("ads",)),),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["w.onnx"], "weights stand inside"
    for length, ads in ((1, 1), (4, 7)):
        history, numbers = np.full((length, 2), 3), np.arange(ads, dtype=np.float32)[:, None]
        (found,) = run(tmp_path / "w.onnx", {"history_clicks": history, "ad_numbers": numbers})
        np.testing.assert_allclose(found, 3 * length * numbers[:, 0])


def test_inputs_that_a_graph_does_not_read_stay_in_its_interface(tmp_path: Path) -> None:
    spec = export_graph(Deaf(), INPUTS, ["logits"], tmp_path / "d.onnx")
    assert {each.name: each.shape for each in spec.inputs} == INPUTS
    (found,) = run(
        tmp_path / "d.onnx", {"history_clicks": np.zeros((1, 2), np.int64), "ad_numbers": np.ones((3, 1), np.float32)}
    )
    assert found.tolist() == [2, 2, 2]


def test_all_sides() -> None:
    assert common_inputs(SCHEMA) == {
        "user": (1,),
        "user_numbers": (1,),
        "context": (1,),
        "history_clicks": ("length_clicks", 5),
    }
    assert candidate_inputs(SCHEMA) == {"ads": ("ads", 6), "ad_numbers": ("ads", 1)}


def without(schema: FeatureSchema, *sides: str) -> FeatureSchema:
    """The schema with these sides empty; `ad_numbers` drops the ads' numbers."""
    changes: dict[str, Any] = {name: Side() for name in sides if name != "ad_numbers"}
    if "ad_numbers" in sides:
        changes["ad"] = Side(fields=schema.ad.id_fields)
    return schema.model_copy(update=changes)


def test_empty_sides_have_no_inputs() -> None:
    bare = without(SCHEMA, "user", "context", "ad_numbers").model_copy(update={"histories": ()})
    assert common_inputs(bare) == {}
    assert candidate_inputs(bare) == {"ads": ("ads", 6)}
    only_ids = SCHEMA.model_copy(update={"user": Side(fields=SCHEMA.user.id_fields)})
    assert "user_numbers" not in common_inputs(only_ids)
    only_numbers = SCHEMA.model_copy(update={"user": Side(fields=SCHEMA.user.number_fields)})
    assert common_inputs(only_numbers)["user_numbers"] == (1,)
    assert "user" not in common_inputs(only_numbers)


@pytest.mark.parametrize("absent", [("context",), ("user", "context", "ad_numbers")], ids="+".join)
def test_networks_without_some_sides_compute_the_same(tmp_path: Path, absent: tuple[str, ...]) -> None:
    """A log without context or profile makes models and graphs all the same."""
    schema = without(SCHEMA, *absent)
    torch.manual_seed(0)
    din = Din(DinConfig(kind="din", embedding=4, attention_hidden=(6, 3), hidden=(8, 5)), schema)
    dqm = Dqm(DqmConfig(kind="dqm", embedding=4, dimension=5, hidden=(8,)), schema)
    for network in (din, dqm):
        shake(network)
        network.eval()
    batch, columns = random_batch(1, 1, 6, seed=3), schema.history_columns(schema.histories[0])
    batch = replace(
        batch,
        user=batch.user[:, : schema.user.id_columns],
        user_numbers=batch.user_numbers[:, : schema.user.number_columns],
        context=batch.context[:, : schema.context.id_columns],
        histories={"clicks": torch.from_numpy(random_ads(6, np.random.default_rng(0))[:, columns]).unsqueeze(0)},
    )
    numbers = torch.randn(9, schema.ad.number_columns)
    batch = with_candidates(batch, torch.from_numpy(random_ads(9, np.random.default_rng(1))), numbers)
    common = Common(
        batch.user[0].numpy(),
        batch.user_numbers[0].numpy(),
        batch.context[0].numpy(),
        batch.context_numbers[0].numpy(),
        {"clicks": batch.histories["clicks"][0].numpy()},
    )
    inputs = common_inputs(schema)
    feeds: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors(common, list(inputs)).items()}
    assert feeds.keys() == inputs.keys()
    query = export_graph(QueryGraph(dqm), inputs, ["query", "offset"], tmp_path / "q.onnx")
    fine = export_graph(DinServing(din), inputs | candidate_inputs(schema), ["logits"], tmp_path / "d.onnx")
    assert {each.name for each in query.inputs} == set(inputs)
    vector, offset = run(tmp_path / "q.onnx", feeds)
    ads = {"ads": batch.ads.numpy()} | ({"ad_numbers": numbers.numpy()} if schema.ad.number_columns else {})
    assert {each.name for each in fine.inputs} == {*inputs, *ads}
    (logits,) = run(tmp_path / "d.onnx", feeds | ads)
    with torch.no_grad():
        expected, expected_offset = dqm.query(batch)
        np.testing.assert_allclose(vector, expected[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(offset, expected_offset[0].numpy(), atol=1e-5)
        np.testing.assert_allclose(logits, din(batch).numpy(), atol=1e-5)


def test_another_interface_than_asked_for_is_refused(tmp_path: Path) -> None:
    """Two axes that the graph ties together cannot both vary."""
    tied: dict[str, tuple[str | int, ...]] = {"history_clicks": ("n", 2), "ad_numbers": ("m", 1)}

    class Tied(nn.Module):
        def forward(self, feeds: Feeds) -> Tensor:
            return feeds["history_clicks"][:, 0] * feeds["ad_numbers"][:, 0]

    with pytest.raises(ValueError, match=r"t\.onnx: the graph's inputs are .*, asked for were .*'m'"):
        export_graph(Tied(), tied, ["logits"], tmp_path / "t.onnx")
