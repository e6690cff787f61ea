"""The serving form of DIN equals the trained network, for every variant, shape, history and padding."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bundle.schema import FeatureSchema, HistorySpec
from export.din_graph import DinServing, Feeds
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from models.data.batches import Batch
from models.funnel import with_candidates
from models.networks.config import DinConfig
from models.networks.cost import cost_of
from models.networks.din import Din
from models.networks.registry import build
from tests.models.world import SCHEMA, random_ads, random_batch, shake

ACTIVATIONS = ("dice", "prelu", "sigmoid", "relu")
ATTENTIONS = ("sum", "softmax")


UNITS = ((6, 3), (16, 8), (80, 40))
"""The last two are cut into 2 and 10 blocks of behaviours."""


def trained(attention: str, activation: str, seed: int = 0, hidden: tuple[int, int] = (6, 3)) -> Din:
    torch.manual_seed(seed)
    config = DinConfig.model_validate(
        {
            "kind": "din",
            "embedding": 4,
            "attention": attention,
            "attention_hidden": hidden,
            "attention_activation": activation,
            "activation": activation,
            "hidden": (8, 5),
            "position_bias": True,
        }
    )
    din = Din(config, SCHEMA)
    shake(din, seed)
    return din.eval()


def request(length: int, real: int, candidates: int, seed: int) -> Batch:
    """One request with `real` behaviours padded to `length`."""
    random = np.random.default_rng(seed)
    history = random_ads(length, random)[:, [0, 1, 2, 3, 5]]
    history[real:] = 0
    batch = random_batch(1, candidates, 1, seed)
    ads = torch.from_numpy(random_ads(candidates, random))
    numbers = torch.from_numpy(random.normal(size=(candidates, 1)).astype(np.float32))
    batch = replace(batch, histories={"clicks": torch.from_numpy(history).unsqueeze(0)})
    return with_candidates(batch, ads, numbers)


def feeds(batch: Batch) -> Feeds:
    return {
        "user": batch.user[0],
        "user_numbers": batch.user_numbers[0],
        "context": batch.context[0],
        "history_clicks": batch.histories["clicks"][0],
        "ads": batch.ads,
        "ad_numbers": batch.ad_numbers,
    }


@settings(max_examples=60, deadline=None)
@given(
    attention=st.sampled_from(ATTENTIONS),
    activation=st.sampled_from(ACTIVATIONS),
    hidden=st.sampled_from(UNITS),
    length=st.integers(1, 60),
    filled=st.floats(0, 1),
    candidates=st.integers(1, 90),
    seed=st.integers(0, 1000),
)
def test_equals_the_tiled_network(
    attention: str, activation: str, hidden: tuple[int, int], length: int, filled: float, candidates: int, seed: int
) -> None:
    din = trained(attention, activation, seed, hidden)
    batch = request(length, round(filled * length), candidates, seed)
    with torch.no_grad():
        expected, found = din(batch), DinServing(din)(feeds(batch))
    assert (expected - found).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    gaps = expected.sort(descending=True).values.diff().abs()
    if len(gaps) and gaps.min() > 1e-5:  # no ties: the order is the same as well
        assert torch.equal(expected.topk(min(10, candidates)).indices, found.topk(min(10, candidates)).indices)


EXPORTED = (
    ("sum", "dice", UNITS[0]),
    ("softmax", "prelu", UNITS[0]),
    ("sum", "sigmoid", UNITS[0]),
    ("softmax", "relu", UNITS[0]),
    ("softmax", "dice", UNITS[1]),
    ("sum", "dice", UNITS[2]),
    ("softmax", "dice", UNITS[2]),
)
"""Every activation, both ways of attention, every number of blocks: each has nodes of its own in the graph. All of them
with each other are above; tests/export/test_half.py exports four more."""


@pytest.mark.parametrize(("attention", "activation", "hidden"), EXPORTED)
def test_the_onnx_file_computes_the_same(
    attention: str, activation: str, hidden: tuple[int, int], tmp_path: Path
) -> None:
    din = trained(attention, activation, hidden=hidden)
    path = tmp_path / "din.onnx"
    inputs = common_inputs(SCHEMA) | candidate_inputs(SCHEMA)
    spec = export_graph(DinServing(din), inputs, ["logits"], path)
    assert {each.name: each.shape for each in spec.inputs} == inputs
    assert [(each.name, each.shape) for each in spec.outputs] == [("logits", ("ads",))]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for length, real, candidates in ((1, 1, 1), (1, 0, 2), (50, 50, 200), (9, 4, 33), (41, 41, 7)):
        batch = request(length, real, candidates, seed=length)
        (found,) = session.run(None, {name: value.numpy() for name, value in feeds(batch).items()})
        with torch.no_grad():
            np.testing.assert_allclose(found, din(batch).numpy(), rtol=0, atol=1e-5)


def test_a_history_may_name_its_fields_in_any_order_and_be_called_anything(tmp_path: Path) -> None:
    """`items` is a method of nn.ModuleDict, `tags` stands after `ad` on the ad side."""
    torch.manual_seed(0)
    history = HistorySpec(name="items", fields=("tags", "ad"), max_length=9)
    schema = FeatureSchema.model_validate(SCHEMA.model_dump() | {"histories": [history.model_dump()]})
    din = Din(trained("sum", "dice").config, schema)
    shake(din)
    din.eval()
    plain = request(9, 6, 12, seed=4)
    swapped = plain.histories["clicks"][..., [1, 2, 3, 0]]
    batch = replace(plain, histories={"items": swapped})
    inputs = common_inputs(schema) | candidate_inputs(schema)
    export_graph(DinServing(din), inputs, ["logits"], tmp_path / "din.onnx")
    session = ort.InferenceSession(str(tmp_path / "din.onnx"), providers=["CPUExecutionProvider"])
    given = {name: value for name, value in feeds(plain).items() if name != "history_clicks"}
    (found,) = session.run(None, {n: v.numpy() for n, v in (given | {"history_items": swapped[0]}).items()})
    with torch.no_grad():
        np.testing.assert_allclose(found, din(batch).numpy(), rtol=0, atol=1e-5)
        ids = batch.histories["items"][0, :6]
        expected = torch.cat(
            [din.arena(ids[:, 3:], din.arena.offsets([schema.ad.fields[0]]), din.ad.tables[:1]).squeeze(1)], dim=-1
        )  # the ad's own embedding stands last in each behaviour
        behaviour = din.behaviours["history_items"](din.arena, ids)
        torch.testing.assert_close(behaviour[:, -4:], expected)


@pytest.mark.parametrize("low_rank", [{}, {"attention.history_clicks.first": {"rank": 4}, "mlp.layers.0": {"rank": 8}}])
def test_it_needs_about_as_many_multiply_adds_as_the_network(low_rank: dict[str, dict[str, int]]) -> None:
    """A candidate's, as models/networks/cost.py counts them: layers of low rank stay two products."""
    config = DinConfig.model_validate(
        {"kind": "din", "embedding": 16, "attention_hidden": [16, 8], "hidden": [64, 32], "low_rank": low_rank}
    )
    network = build(config, SCHEMA).eval()
    serving = DinServing(network)  # type: ignore[arg-type]
    counts = []
    for candidates in (2, 3):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            serving(feeds(request(50, 50, candidates, seed=1)))
        counts.append(counter.get_total_flops() // 2)
    assert counts[1] - counts[0] == pytest.approx(cost_of(network).candidate, rel=0.1)
