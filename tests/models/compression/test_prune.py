"""Units that say nothing leave without a trace, what others say is taken over, and the next layer hardly notices."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.compression.moments import Moments, of_activations
from models.compression.prune import chosen
from models.compression.subject import CompressionError, Subject
from models.data.batches import batches
from models.networks.config import DeepConfig, DinConfig
from models.networks.cost import cost_of
from tests.market import Market
from tests.models.compression.subjects import DEEPFM, DIN, DIN_WITH_BIAS, WIDE_DEEP, subject, taken
from tests.models.compression.test_factorise import logits
from tests.models.networks.small import small
from tests.models.world import random_batch


def moments_of(a: Tensor) -> Moments:
    found = Moments(a.shape[-1])
    found.add(a)
    return found


def error(a: np.ndarray, v: np.ndarray, units: list[int]) -> float:
    """E‖V a - (V' a_S + c)‖² with the best V' and c, by least squares."""
    z = a @ v.T
    design = np.column_stack([a[:, units], np.ones(len(a))])
    return float(np.square(design @ np.linalg.lstsq(design, z, rcond=None)[0] - z).sum(1).mean())


def test_each_unit_that_leaves_is_the_one_that_costs_least_and_the_rest_is_fitted_again() -> None:
    """Against a plain greedy search that solves the least squares of every candidate anew."""
    torch.manual_seed(3)
    a = torch.randn(300, 7) @ torch.randn(7, 7) + 1
    v = torch.randn(4, 7)
    rows, columns = a.double().numpy(), v.double().numpy()
    left = list(range(7))
    while len(left) > 3:
        left.remove(min(left, key=lambda unit: error(rows, columns, [each for each in left if each != unit])))
    units, refitted = chosen(v.double(), moments_of(a), 3)
    assert units.tolist() == left
    centred = rows - rows.mean(0)
    found = float(np.square(centred @ columns.T - centred[:, left] @ refitted.numpy().T).sum(1).mean())
    assert found == pytest.approx(error(rows, columns, left), rel=1e-4)


def silence(found: Subject, layer: str, units: list[int], at: float) -> None:
    """These units of the layer give the same in every row: x = `at` before the activation."""
    with torch.no_grad():
        found.network.get_parameter(f"{layer}.weight")[units] = 0
        found.network.get_parameter(f"{layer}.bias")[units] = at


@pytest.mark.parametrize("at", [0.0, 1.5])
@pytest.mark.parametrize("model", [DIN_WITH_BIAS, DEEPFM, WIDE_DEEP], ids=lambda model: str(model["kind"]))
def test_units_that_say_the_same_in_every_row_leave_without_a_trace(
    model: dict[str, Any], at: float, market: Market, tmp_path: Path
) -> None:
    before = subject(market, model)
    silence(before, "mlp.layers.0", [0, 3, 9, 15], at)
    silence(before, "mlp.layers.1", [2, 7], at)
    after = taken(market, tmp_path, before, step="prune", hidden=[12, 6])
    assert isinstance(after.model, DeepConfig)
    assert after.model.hidden == (12, 6)
    torch.testing.assert_close(logits(after, market), logits(before, market), rtol=0, atol=2e-4)
    assert cost_of(after.network).candidate < cost_of(before.network).candidate


def test_units_of_the_activation_unit_leave_without_a_trace(market: Market, tmp_path: Path) -> None:
    before = subject(market, DIN)
    for name in ("first", "second"):
        for path, _ in list(before.network.get_submodule("attention").named_children()):
            silence(before, f"attention.{path}.{name}", [1, 4, 5], 0.7)
    after = taken(market, tmp_path, before, step="prune", attention_hidden=[9, 5])
    assert isinstance(after.model, DinConfig)
    assert after.model.attention_hidden == (9, 5)
    torch.testing.assert_close(logits(after, market), logits(before, market), rtol=0, atol=2e-4)


def test_a_unit_that_repeats_another_is_taken_over_by_it(market: Market, tmp_path: Path) -> None:
    before = subject(market, DEEPFM)
    with torch.no_grad():
        layer = before.network.get_submodule("mlp.layers.1")
        assert isinstance(layer, nn.Linear)
        layer.weight[5], layer.bias[5] = layer.weight[2], layer.bias[2]
        for value in before.network.get_submodule("mlp.activations.1").state_dict().values():
            if value.shape == (8,):
                value[5] = value[2]
    after = taken(market, tmp_path, before, step="prune", hidden=[16, 7])
    torch.testing.assert_close(logits(after, market), logits(before, market), rtol=0, atol=5e-3)


def test_the_mean_of_what_the_next_layer_gives_stays(market: Market, tmp_path: Path) -> None:
    before = subject(market, DEEPFM)
    after = taken(market, tmp_path, before, step="prune", hidden=[4, 8], impressions=10**6)

    def mean(found: Subject) -> Tensor:
        """E[z] of the second layer over the training split."""
        moments = of_activations(found.network, ["mlp.activations.0"], batches(market.data, "train", 512))
        layer = found.network.get_submodule("mlp.layers.1")
        assert isinstance(layer, nn.Linear)
        return layer.weight.double() @ moments["mlp.activations.0"].mean + layer.bias.double()

    torch.testing.assert_close(mean(after), mean(before), rtol=0, atol=1e-5)


def test_the_subject_stays_as_it_is(market: Market, tmp_path: Path) -> None:
    before = subject(market, DIN)
    state = {name: value.clone() for name, value in before.network.state_dict().items()}
    taken(market, tmp_path, before, step="prune", hidden=[4, 2], attention_hidden=[3, 2])
    assert all(torch.equal(value, state[name]) for name, value in before.network.state_dict().items())


def test_layers_of_low_rank_can_be_pruned(market: Market, tmp_path: Path) -> None:
    before = subject(market, DIN)
    silence(before, "mlp.layers.0", [0, 3], 0.4)
    thin = taken(market, tmp_path, before, step="factorise", layers={"mlp.layers.*": 4, "attention.*.second": 3})
    after = taken(market, tmp_path, thin, step="prune", hidden=[14, 8], attention_hidden=[11, 8])
    assert len(after.network.get_parameter("mlp.layers.0.outer.bias")) == 14
    assert after.network.get_parameter("mlp.layers.1.inner.weight").shape == (4, 14)
    drift = (logits(after, market) - logits(thin, market)).abs().mean()
    assert drift < 0.05 * logits(thin, market).std()


def test_padding_does_not_count() -> None:
    """Of an activation unit, what the mask leaves is what is recorded."""
    din, batch = small("din"), random_batch(6, 3, 8)
    found = of_activations(din, ["attention.history_clicks.first_activation"], [batch])
    filled = int((batch.histories["clicks"][..., 0] != 0)[batch.request].sum())
    assert found["attention.history_clicks.first_activation"].rows == filled


@pytest.mark.parametrize(
    ("model", "step", "message"),
    [
        (DEEPFM, {"attention_hidden": [2, 2]}, "attention_hidden is of a din, this is a deepfm"),
        (DEEPFM, {"hidden": [16]}, r"hidden is \[16\], the network has \[16, 8\]"),
        (DIN, {"hidden": [16, 9]}, r"hidden is \[16, 9\], the network has \[16, 8\], each can only get smaller"),
        (DIN, {"attention_hidden": [13, 8]}, r"attention_hidden is \[13, 8\], the network has \[12, 8\]"),
        ({"kind": "dqm", "embedding": 4, "dimension": 6}, {"hidden": [4]}, "a dqm has no such network"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: dict[str, Any], step: dict[str, Any], message: str, market: Market, tmp_path: Path
) -> None:
    with pytest.raises(CompressionError, match=message):
        taken(market, tmp_path, subject(market, model), step="prune", **step)


def test_too_few_calibration_rows_are_refused(market: Market, tmp_path: Path) -> None:
    wide = subject(market, DEEPFM | {"hidden": [1500]})
    with pytest.raises(CompressionError, match=r"1\d{3} calibration rows reach the 1500 units of 'mlp.activations.0'"):
        taken(market, tmp_path, wide, step="prune", hidden=[2], impressions=10)


def test_weights_that_are_not_finite_are_refused(market: Market, tmp_path: Path) -> None:
    broken = subject(market, DEEPFM)
    with torch.no_grad():
        broken.network.get_parameter("mlp.layers.1.weight")[0, 0] = torch.inf
    with pytest.raises(CompressionError, match=r"'mlp.layers.1', or what it reads, holds values that are not finite"):
        taken(market, tmp_path, broken, step="prune", hidden=[4, 8])
