"""What the funnel loses, against a plain loop over sorted lists."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.ad_vectors import AdVectors
from bundle.cell_files import arrange
from bundle.schema import FIRST_KNOWN
from export.assemble import Trained
from models import funnel
from models.cells import cell_of_ads
from models.checkpoint import Checkpoint
from models.config import ConfigError
from models.funnel import FunnelSizes, measure_funnel, sample, top, with_candidates
from models.networks.dqm import Dqm
from tests.market import Market

REQUESTS = 6
NAMES = ("recall_after_retrieval", "recall_after_qscore", "recall_after_prerank", "ecpm_lost")


@pytest.fixture
def stages(trained: Trained, tmp_path: Path) -> tuple[Checkpoint, Checkpoint, Checkpoint]:
    """The trained checkpoints, with Qscores of which no two are equal: ties may go either way."""
    folder = Path(shutil.copytree(trained.qscore.folder, tmp_path / "qscore"))
    scores = np.random.default_rng(0).random(len(trained.data.ads.fields)).astype(np.float32)
    np.savez(folder / "qscore.npz", scores=scores, mean=0.1, strength=10.0)
    return trained.finerank, trained.prerank, replace(trained.qscore, folder=folder)


def plain(market: Market, stages: tuple[Checkpoint, Checkpoint, Checkpoint], sizes: FunnelSizes) -> list[float]:
    """The four figures, one ad at a time."""
    din, dqm, table = stages[0].network(), stages[1].network(), stages[2].qscore().scores
    assert isinstance(dqm, Dqm)
    ads = market.data.ads
    rows = range(FIRST_KNOWN, len(ads.fields))
    whole = torch.from_numpy(ads.fields).long(), torch.from_numpy(ads.numbers)
    with torch.no_grad():
        vectors = dqm.ad_vectors(*whole).numpy()
    order, cells = arrange(vectors, table * ads.bids, cell_of_ads(vectors))
    codes = AdVectors.of(vectors)
    found = []
    for batch in sample(market.data, "test", REQUESTS, seed=0):
        fine, near = {}, {}
        for row in rows:
            ids, numbers = (
                torch.from_numpy(ads.fields[row : row + 1]).long(),
                torch.from_numpy(ads.numbers[row : row + 1]),
            )
            one = with_candidates(batch, ids, numbers)
            with torch.no_grad():
                fine[row] = float(torch.sigmoid(din(one))) * float(ads.bids[row])
                query, offset = dqm.query(one)
            near[row] = float(codes.floats(row) @ query[0].numpy() + offset)
        best = sorted(rows, key=lambda row: -fine[row])[:10]
        matched = []
        for cell in np.argsort(-(cells.centroids @ query[0].numpy())):
            matched += order[cells.offsets[cell] : cells.offsets[cell + 1]].tolist()
        matched = matched[: sizes.retrieval]
        scored = sorted(matched, key=lambda row: -table[row] * ads.bids[row])[: sizes.qscore]
        ranked = sorted(scored, key=lambda row: -ads.bids[row] / (1 + math.exp(-near[row])))[: sizes.prerank]
        shown = sorted(ranked, key=lambda row: -fine[row])[:10]
        recalls = [len(set(best) & set(kept)) / 10 for kept in (matched, scored, ranked)]
        found.append([*recalls, 1 - sum(fine[row] for row in shown) / sum(fine[row] for row in best)])
    return [float(value) for value in np.mean(found, axis=0)]


@pytest.mark.parametrize("sizes", [FunnelSizes(150, 90, 40), FunnelSizes(40, 39, 12), FunnelSizes(300, 30, 8)])
def test_equals_a_plain_loop(
    market: Market, stages: tuple[Checkpoint, Checkpoint, Checkpoint], sizes: FunnelSizes
) -> None:
    found = measure_funnel(*stages, market.data, "test", sizes, REQUESTS)
    assert [found[f"funnel.{name}"] for name in NAMES] == pytest.approx(plain(market, stages, sizes), abs=1e-6)
    assert (found["funnel.requests"], found["funnel.ads"]) == (REQUESTS, len(market.data.ads.index))


def test_nothing_is_lost_when_nothing_is_left_out(
    market: Market, stages: tuple[Checkpoint, Checkpoint, Checkpoint]
) -> None:
    found = measure_funnel(*stages, market.data, "test", FunnelSizes(10_000, 300, 300), REQUESTS)
    assert [found[f"funnel.{name}"] for name in NAMES] == [1.0, 1.0, 1.0, 0.0]


def test_smaller_funnels_lose_more(market: Market, stages: tuple[Checkpoint, Checkpoint, Checkpoint]) -> None:
    lost = []
    for sizes in (FunnelSizes(300, 300, 300), FunnelSizes(150, 75, 40), FunnelSizes(40, 20, 10), FunnelSizes(3, 2, 1)):
        found = measure_funnel(*stages, market.data, "test", sizes, REQUESTS)
        recalls = [found[f"funnel.{name}"] for name in NAMES[:3]]
        assert recalls == sorted(recalls, reverse=True), "no stage brings an ad back"
        assert recalls[2] <= sizes.prerank / 10
        lost.append(found["funnel.ecpm_lost"])
    assert lost == sorted(lost)
    assert lost[-1] > 0.8, "one ad is worth less than a fifth of ten"


def test_chunks_do_not_matter(
    market: Market, stages: tuple[Checkpoint, Checkpoint, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = FunnelSizes(150, 90, 40)
    whole = measure_funnel(*stages, market.data, "test", sizes, REQUESTS)
    monkeypatch.setattr(funnel, "CHUNK", 37)
    assert measure_funnel(*stages, market.data, "test", sizes, REQUESTS) == pytest.approx(whole, abs=1e-6)


def test_only_two_towers_retrieve(market: Market, trained: Trained) -> None:
    with pytest.raises(ConfigError, match="pre-ranking needs two towers, not 'din'"):
        measure_funnel(trained.finerank, trained.finerank, trained.qscore, market.data, "test", FunnelSizes(9, 9, 9), 1)


def test_top() -> None:
    scores = np.array([0.1, 0.9, 0.5, 0.7], dtype=np.float32)
    assert sorted(top(scores, 2).tolist()) == [1, 3]
    assert sorted(top(scores, 4).tolist()) == sorted(top(scores, 9).tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("sizes", [(0, 5, 5), (5, -1, 5), (5, 5, 0)])
def test_sizes_without_an_ad_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"size (retrieval|qscore|prerank) is (0|-1), at least 1 is needed"):
        FunnelSizes(*sizes)
