"""An export proves itself: equal graphs pass, any other is refused with the numbers."""

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bundle.golden import GoldenRow
from bundle.manifest import GraphSpec, Manifest, read_manifest
from export.assemble import Trained
from export.parity import TOLERANCE, Parity, ParityError, common_of, gap, golden_requests, prove, sigmoid
from models.networks.din import Din
from models.networks.dqm import Dqm
from tests.market import Market

REQUESTS, CANDIDATES = 4, 30


@pytest.fixture
def manifest(exported: Path) -> Manifest:
    return read_manifest(exported)


@pytest.fixture
def din(trained: Trained) -> Din:
    network = trained.finerank.network()
    assert isinstance(network, Din)
    return network


@pytest.fixture
def dqm(trained: Trained) -> Dqm:
    network = trained.prerank.network()
    assert isinstance(network, Dqm)
    return network


def proof(
    market: Market, dqm: Dqm, din: Din, folder: Path, manifest: Manifest, split: str = "test"
) -> tuple[list[GoldenRow], Parity]:
    chosen = golden_requests(market.data, split, REQUESTS, CANDIDATES, seed=5)
    query: GraphSpec = manifest.stages.prerank.query
    return prove(dqm, din, query, manifest.stages.finerank.graph, folder, market.data, chosen)


def test_equal_graphs_pass_with_torchs_outputs(
    market: Market, exported: Path, manifest: Manifest, din: Din, dqm: Dqm
) -> None:
    rows, parity = proof(market, dqm, din, exported, manifest)
    assert (parity.requests, parity.candidates) == (REQUESTS, REQUESTS * CANDIDATES)
    assert 0 <= parity.pctr <= TOLERANCE
    ads = market.data.ads
    for row, (batch, chosen) in zip(rows, golden_requests(market.data, "test", REQUESTS, CANDIDATES, 5), strict=True):
        np.testing.assert_array_equal(row.ads, chosen)
        with torch.no_grad():
            query, offset = dqm.query(batch)
            vectors = dqm.ad_vectors(torch.from_numpy(ads.fields[chosen]).long(), torch.from_numpy(ads.numbers[chosen]))
        np.testing.assert_array_equal(row.query, query[0].numpy())
        assert row.offset == pytest.approx(offset.item())
        assert np.isfinite(vectors.numpy() @ row.query).all()
        assert row.logits.std() > 0


@pytest.mark.parametrize("change", [1e-3, 1.0])
def test_another_fine_ranker_is_refused_with_the_difference(
    market: Market, exported: Path, manifest: Manifest, din: Din, dqm: Dqm, change: float
) -> None:
    with torch.no_grad():
        din.mlp.out.bias.add_(change)
    with pytest.raises(ParityError, match=r"differ by \S+ in pCTR \(at most 1e-05\).* over 4 requests") as caught:
        proof(market, dqm, din, exported, manifest)
    found = re.search(r"differ by (\S+) in pCTR", str(caught.value))
    assert found is not None
    assert change * 0.01 < float(found[1]) <= change / 4, "a logit moved by c moves a probability by at most c / 4"


def test_another_query_tower_is_refused(market: Market, exported: Path, manifest: Manifest, din: Din, dqm: Dqm) -> None:
    with torch.no_grad():
        dqm.user_tower.out.bias[0] += 0.01
    with pytest.raises(ParityError, match=r"and 0\.01 in query vectors \(at most 0\.0001\)"):
        proof(market, dqm, din, exported, manifest)


def test_another_offset_is_refused(market: Market, exported: Path, manifest: Manifest, din: Din, dqm: Dqm) -> None:
    with torch.no_grad():
        dqm.scene_tower.out.bias[-1] += 0.25
    with pytest.raises(ParityError, match=r"and 0\.25 in query vectors"):
        proof(market, dqm, din, exported, manifest)


@pytest.mark.parametrize("stage", ["din", "dqm"])
def test_scores_that_are_no_numbers_are_refused(
    market: Market, exported: Path, manifest: Manifest, din: Din, dqm: Dqm, stage: str
) -> None:
    with torch.no_grad():
        (din.mlp if stage == "din" else dqm.user_tower).out.bias.fill_(torch.nan)
    with pytest.raises(ParityError, match="nan"):
        proof(market, dqm, din, exported, manifest)


def test_a_damaged_graph_is_refused(
    market: Market, exported: Path, manifest: Manifest, din: Din, dqm: Dqm, tmp_path: Path
) -> None:
    """One weight of the written file is off."""
    for spec in (manifest.stages.prerank.query, manifest.stages.finerank.graph):
        shutil.copyfile(exported / spec.file, tmp_path / spec.file)
    path = tmp_path / manifest.stages.finerank.graph.file
    model = onnx.load(str(path))
    biases = [each for each in model.graph.initializer if "position_bias" in each.name or each.dims == [1, 1]]
    assert biases
    for each in biases:
        each.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(each) + np.float32(0.01), each.name))
    onnx.save(model, str(path))
    with pytest.raises(ParityError, match="differ by 0\\.00"):
        proof(market, dqm, din, tmp_path, manifest)
    proof(market, dqm, din, exported, manifest)


def test_golden_requests_are_real_and_include_the_unknown_ad(market: Market) -> None:
    chosen = golden_requests(market.data, "test", 5, 20, seed=1)
    assert len(chosen) == 5
    for batch, rows in chosen:
        assert len(batch.user) == 1
        assert rows.shape == (20,)
        assert rows[-1] == 1
        assert rows[:-1].min() >= 2
        assert rows.max() < len(market.data.ads.fields)
    again = golden_requests(market.data, "test", 5, 20, seed=1)
    assert all(
        (one[1] == two[1]).all() and (one[0].rows == two[0].rows).all() for one, two in zip(chosen, again, strict=True)
    )
    other = golden_requests(market.data, "test", 5, 20, seed=2)
    assert any((one[1] != two[1]).any() for one, two in zip(chosen, other, strict=True))


def test_common_features_are_padded_to_the_histories_full_length(market: Market) -> None:
    longest = market.data.schema.histories[0].max_length
    for batch, _ in golden_requests(market.data, "test", 5, 3, seed=1):
        common = common_of(batch, market.data)
        ids = batch.histories["clicks"][0].numpy()
        assert common.histories["clicks"].shape == (longest, ids.shape[1])
        np.testing.assert_array_equal(common.histories["clicks"][: len(ids)], ids)
        assert not common.histories["clicks"][len(ids) :].any()


def test_gap_and_sigmoid() -> None:
    assert gap([1.0, 2.0], [1.0, 2.5]) == 0.5
    assert np.isnan(gap([1.0, np.nan], [1.0, 1.0]))
    assert sigmoid(np.array([0.0], dtype=np.float32)).tolist() == [0.5]
    assert sigmoid(np.array([2.0], dtype=np.float32))[0] == pytest.approx(1 / (1 + np.exp(-2)))
