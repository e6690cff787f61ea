"""SVD and Atomic Feature Mimicking: full rank reproduces a layer, errors are what theory says, refusals name them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from export.request_graph import serving_graph
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from models.compression.factorise import Factors, factors_of, reads, weights
from models.compression.moments import Moments, of_inputs
from models.compression.recipe import Factorise
from models.compression.subject import CompressionError, Subject
from models.data.batches import Batch, batches
from models.networks.attention import ActivationUnit
from models.networks.config import EmbeddedConfig
from models.networks.cost import cost_of
from models.networks.low_rank import LowRank, linear_layers
from tests.export.test_din_graph import feeds, request
from tests.market import Market
from tests.models.compression.subjects import DEEPFM, DIN, DIN_WITH_BIAS, WIDE_DEEP, subject, taken
from tests.models.networks.small import small
from tests.models.world import SCHEMA, random_batch

METHODS = ("svd", "svd-weighted", "afm")
WIDTH, OUT = 9, 6


def layer_and_rows(seed: int = 0) -> tuple[nn.Linear, Tensor]:
    """A layer, and inputs of unequal spread, correlated, not centred."""
    torch.manual_seed(seed)
    layer = nn.Linear(WIDTH, OUT)
    mixed = torch.randn(200, WIDTH) @ torch.randn(WIDTH, WIDTH) * torch.linspace(0.05, 3.0, WIDTH)
    return layer, mixed + torch.randn(WIDTH)


def moments_of(x: Tensor) -> Moments:
    found = Moments(x.shape[-1])
    for part in torch.split(x, 64):
        found.add(part)
    return found


def low_rank(factors: Factors, rank: int, between: str | None = None) -> LowRank:
    layer = LowRank(factors.inner.shape[1], factors.outer.shape[0], rank, between)
    layer.load_state_dict(weights(factors, rank, between))
    return layer.eval()


def squared_error(layer: nn.Linear, x: Tensor, method: str, rank: int) -> float:
    """Mean over rows of the squared distance, in float64."""
    factors = factors_of(layer, method, moments_of(x))
    y = x.double() @ layer.weight.double().T + layer.bias.double()
    thin = x.double() @ factors.inner[:rank].T + factors.shift[:rank]
    found: Tensor = (thin @ factors.outer[:, :rank].T + factors.bias - y).square().sum(1).mean()
    return float(found.detach())


def test_moments_are_those_of_all_rows() -> None:
    x = torch.randn(5, 7, 3)
    found = Moments(3)
    found.add(x[:2])
    found.add(x[2:])
    rows = x.flatten(0, 1).double().numpy()
    assert found.rows == len(rows)
    np.testing.assert_allclose(found.mean.numpy(), rows.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.covariance.numpy(), np.cov(rows.T, bias=True), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("between", [None, "prelu", "dice"])
def test_at_full_rank_the_layer_is_reproduced(method: str, between: str | None) -> None:
    layer, x = layer_and_rows()
    thin = low_rank(factors_of(layer, method, moments_of(x)), OUT, between)
    torch.testing.assert_close(thin(x), layer(x), rtol=0, atol=2e-5)


@pytest.mark.parametrize("rank", range(1, OUT))
def test_the_error_of_afm_is_the_sum_of_the_eigenvalues_left_out(rank: int) -> None:
    layer, x = layer_and_rows()
    y = (x @ layer.weight.T + layer.bias).detach().double().numpy()
    left_out = np.sort(np.linalg.eigvalsh(np.cov(y.T, bias=True)))[: OUT - rank].sum()
    assert squared_error(layer, x, "afm", rank) == pytest.approx(left_out, rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_method_is_nearer_on_calibration_rows_at_the_same_rank(seed: int) -> None:
    layer, x = layer_and_rows(seed)
    for rank in range(1, OUT):
        afm, svd, weighted = (squared_error(layer, x, method, rank) for method in ("afm", "svd", "svd-weighted"))
        assert afm <= min(svd, weighted) * (1 + 1e-9)
        assert afm < 0.9 * svd


def test_svd_leaves_out_the_smallest_singular_values() -> None:
    layer, _ = layer_and_rows()
    factors = factors_of(layer, "svd", None)
    missing = layer.weight.detach().double() - factors.outer[:, :2] @ factors.inner[:2]
    singular = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)
    assert float(missing.square().sum()) == pytest.approx(float(np.square(singular[2:]).sum()), rel=1e-5)


def test_weighted_svd_leaves_out_least_of_the_weights_times_the_size_of_inputs() -> None:
    layer, x = layer_and_rows()
    moments = moments_of(x)
    size = moments.second.diagonal().sqrt()

    def missing(method: str) -> float:
        factors = factors_of(layer, method, moments)
        gone = layer.weight.detach().double() - factors.outer[:, :2] @ factors.inner[:2]
        return float((gone * size).square().sum())

    assert missing("svd-weighted") < missing("svd")
    assert missing("svd-weighted") < missing("afm")


def test_an_input_that_is_always_zero_is_no_obstacle() -> None:
    layer, x = layer_and_rows()
    x[:, 3] = 0
    for method in METHODS:
        thin = low_rank(factors_of(layer, method, moments_of(x)), OUT)
        torch.testing.assert_close(thin(x), layer(x), rtol=0, atol=2e-5)


def test_the_share_of_variance_gives_the_least_rank_that_keeps_it() -> None:
    nothing = torch.zeros(1)
    factors = Factors(nothing, nothing, nothing, nothing, torch.tensor([6.0, 3.0, 1.0], dtype=torch.float64))
    assert [factors.rank_for(share) for share in (0.5, 0.6, 0.61, 0.9, 0.95)] == [1, 1, 2, 2, 3]


def test_what_a_split_layer_reads_is_found() -> None:
    """The first layer of an activation unit reads [q, k, q - k, q ⊙ k] of real behaviours, that of the network on top
    everything once an impression."""
    din, batch = small("din"), random_batch(6, 3, 8)
    found = of_inputs(din, ["attention.history_clicks.first", "mlp.layers.0"], [batch])
    encoder, ids = din.behaviours["history_clicks"], batch.histories["clicks"]
    q = encoder(din.arena, batch.ads[:, SCHEMA.history_columns(SCHEMA.histories[0])])
    k = encoder(din.arena, ids)[batch.request]
    wide = q.unsqueeze(1).expand_as(k)
    rows = torch.cat([wide, k, wide - k, wide * k], dim=-1)[(ids[..., 0] != 0)[batch.request]].detach().double().numpy()
    attention = found["attention.history_clicks.first"]
    np.testing.assert_allclose(attention.mean.numpy(), rows.mean(0), atol=1e-6)
    np.testing.assert_allclose(attention.covariance.numpy(), np.cov(rows.T, bias=True), atol=1e-6)
    assert found["mlp.layers.0"].rows == len(batch.labels)
    assert not any(isinstance(each, LowRank) for each in din.modules())


def logits(found: Subject, market: Market) -> Tensor:
    with torch.no_grad():
        return torch.cat([found.network(each) for each in batches(market.data, "test", 512)])


def everything(found: Subject) -> dict[str, int]:
    """Path -> full rank, of all layers of more than one output."""
    return {
        path: min(each.weight.shape)
        for path, each in linear_layers(found.network).items()
        if each.out_features > 1
    }  # fmt: skip


@pytest.mark.parametrize("model", [DIN_WITH_BIAS, DEEPFM, WIDE_DEEP], ids=lambda model: str(model["kind"]))
@pytest.mark.parametrize("method", METHODS)
def test_a_network_at_full_rank_is_the_same_network(
    model: dict[str, Any], method: str, market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full rank costs more than it saves and is refused, so the refusal is lifted here."""
    monkeypatch.setattr("models.compression.factorise._require_worth", lambda *_: None)
    before = subject(market, model)
    after = taken(market, tmp_path, before, step="factorise", method=method, layers=everything(before), between="dice")
    assert len([each for each in after.network.modules() if isinstance(each, LowRank)]) == len(everything(before))
    torch.testing.assert_close(logits(after, market), logits(before, market), rtol=0, atol=2e-4)


def test_the_configuration_says_what_was_done_and_builds_it(market: Market, tmp_path: Path) -> None:
    before = subject(market, DIN)
    state = {name: value.clone() for name, value in before.network.state_dict().items()}
    after = taken(market, tmp_path, before, step="factorise", layers={"mlp.layers.*": 3, "attention.*.first": 2})
    again = taken(market, tmp_path, after, step="factorise", layers={"attention.*.second": 4})
    assert isinstance(again.model, EmbeddedConfig)
    ranks = {path: each.rank for path, each in again.model.low_rank.items()}
    assert {path.rpartition(".")[2]: rank for path, rank in ranks.items()} == {"0": 3, "1": 3, "first": 2, "second": 4}
    assert type(again.model).model_validate_json(again.model.model_dump_json()) == again.model
    assert cost_of(again.network).candidate < cost_of(after.network).candidate < cost_of(before.network).candidate
    assert isinstance(before.model, EmbeddedConfig)
    assert not before.model.low_rank
    assert all(torch.equal(value, state[name]) for name, value in before.network.state_dict().items())


def test_times_fewer_is_the_share_of_the_rank_that_would_save_nothing(market: Market, tmp_path: Path) -> None:
    before = subject(market, DIN)
    after = taken(market, tmp_path, before, step="factorise", layers={"*": "2x"})
    assert isinstance(after.model, EmbeddedConfig)
    for path, layer in linear_layers(before.network).items():
        if layer.out_features > 1:
            width = reads(before.network, path)
            expected = int(width * layer.out_features / (width + layer.out_features) / 2)
            assert after.model.low_rank[path].rank == max(1, expected)
    assert "mlp.out" not in after.model.low_rank


def test_the_first_layer_of_an_activation_unit_counts_by_its_product_of_q_and_k(market: Market) -> None:
    found = subject(market, DIN)
    path, unit = next((p, m) for p, m in found.network.named_modules() if isinstance(m, ActivationUnit))
    assert reads(found.network, f"{path}.first") == unit.width
    assert reads(found.network, f"{path}.second") == 12


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"mlp.layers.7": 2}, "there is no linear layer 'mlp.layers.7', known: .*mlp.layers.0 \\(16 x [0-9]+\\)"),
        ({"tower.*": 2}, "there is no linear layer 'tower.\\*'"),
        ({"mlp.layers.1": 9}, "'mlp.layers.1' is 8 x 16, rank 9 is above 8"),
        ({"mlp.layers.1": 6}, "'mlp.layers.1' is 8 x 16, rank 6 saves nothing: it has to be below 5.3"),
        ({"mlp.layers.1": 0.9999999}, "rank [678], which keeps 1 of the variance, saves nothing"),
        ({"mlp.out": 1}, "saves nothing: it has to be below 0.9"),
    ],
)
def test_what_does_not_fit_is_refused(layers: dict[str, Any], message: str, market: Market, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match=message):
        taken(market, tmp_path, subject(market, DEEPFM), step="factorise", layers=layers)


def test_a_layer_that_is_of_low_rank_already_is_not_there(market: Market, tmp_path: Path) -> None:
    once = taken(market, tmp_path, subject(market, DEEPFM), step="factorise", layers={"mlp.layers.1": 2})
    with pytest.raises(CompressionError, match=r"there is no linear layer 'mlp.layers.1', known: mlp.layers.0 "):
        taken(market, tmp_path, once, step="factorise", layers={"mlp.layers.1": 1})


def test_too_few_calibration_rows_are_refused(market: Market, tmp_path: Path) -> None:
    wide = subject(market, DEEPFM | {"hidden": [1500]})
    with pytest.raises(CompressionError, match=r"1\d{3} calibration rows reach layer 'mlp.layers.0', it has 1500 out"):
        taken(market, tmp_path, wide, step="factorise", layers={"mlp.layers.0": 2}, impressions=10)


def test_weights_that_are_not_finite_are_refused(market: Market, tmp_path: Path) -> None:
    broken = subject(market, DEEPFM)
    with torch.no_grad():
        linear_layers(broken.network)["mlp.layers.0"].weight[0, 0] = torch.nan
    with pytest.raises(CompressionError, match=r"'mlp.layers.0' holds weights that are not finite"):
        taken(market, tmp_path, broken, step="factorise", method="svd", layers={"mlp.layers.0": 2})


def test_a_linear_model_has_no_layers(market: Market, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="a lr has no embeddings and no layers"):
        taken(market, tmp_path, subject(market, {"kind": "lr"}), step="factorise", layers={"*": 2})


@pytest.mark.parametrize("asked", [0, 1.0, 0.0, "0x", "x", -2])
def test_ranks_that_mean_nothing_are_refused(asked: object) -> None:
    with pytest.raises(ValidationError, match="layers"):
        Factorise.model_validate({"step": "factorise", "layers": {"*": asked}})


@pytest.mark.parametrize("between", [None, "prelu", "dice"])
def test_the_onnx_file_of_a_factorised_din_computes_the_same(between: str | None, tmp_path: Path) -> None:
    din = small("din")
    batch = random_batch(40, 4, 12)
    moments = of_inputs(din, ["attention.history_clicks.first", "mlp.layers.0"], [batch])
    for path, found in moments.items():
        factors = factors_of(linear_layers(din)[path], "afm", found)
        din.set_submodule(path, low_rank(factors, 3, between))
    spec = export_graph(
        serving_graph(din.eval()), common_inputs(SCHEMA) | candidate_inputs(SCHEMA), ["logits"], tmp_path / "din.onnx"
    )
    assert spec.outputs[0].name == "logits"
    session = ort.InferenceSession(str(tmp_path / "din.onnx"), providers=["CPUExecutionProvider"])
    for length, candidates in ((1, 1), (9, 33), (50, 7)):
        one: Batch = request(length, length, candidates, seed=length)
        (found_logits,) = session.run(None, {name: value.numpy() for name, value in feeds(one).items()})
        with torch.no_grad():
            np.testing.assert_allclose(found_logits, din(one).numpy(), rtol=0, atol=2e-5)
