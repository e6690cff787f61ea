"""Pre-rankers in the place of the two towers, against plain orders of the same ads."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.schema import FIRST_KNOWN
from export.assemble import Trained
from models.checkpoint import Checkpoint, open_checkpoint
from models.config import ConfigError
from models.funnel import FunnelSizes, PreRanker, measure_funnel, sample, with_candidates
from models.networks.config import ModelConfig
from models.prerankers import prerankers, table
from models.train import train_one
from tests.market import Market, make_config
from tests.models.networks.small import SMALL

SIZES = FunnelSizes(150, 90, 20)
REQUESTS = 5


def tiny(kind: str, market: Market, folder: Path) -> Checkpoint:
    model: ModelConfig = SMALL[kind]
    config = make_config(f"tiny-{kind}", model.model_dump(), epochs=1, evaluations=1)
    train_one(config, market.data, folder, seed=1, progress=False)
    return open_checkpoint(folder)


@pytest.fixture(scope="module")
def all_of_them(market: Market, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    more = [tiny(kind, market, tmp_path_factory.mktemp(kind)) for kind in ("dssm", "cold")]
    return [trained.qscore, trained.prerank, *more, trained.finerank]


@pytest.fixture(scope="module")
def rivals(market: Market, all_of_them: list[Checkpoint]) -> dict[str, PreRanker]:
    return prerankers(all_of_them, market.data)


@pytest.fixture(scope="module")
def figures(market: Market, trained: Trained, rivals: dict[str, PreRanker]) -> dict[str, float]:
    stages = trained.finerank, trained.prerank, trained.qscore
    return measure_funnel(*stages, market.data, "test", SIZES, REQUESTS, rivals=rivals)


def test_each_gives_its_models_probabilities(
    market: Market, all_of_them: list[Checkpoint], rivals: dict[str, PreRanker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.prerankers.CHUNK", 17)
    ads = np.array([5, 0, 299, 7, *range(40, 80)])
    ids, numbers = (
        torch.from_numpy(each[FIRST_KNOWN + ads]) for each in (market.data.ads.fields, market.data.ads.numbers)
    )
    batch = sample(market.data, "test", 1, seed=0)[0]
    for checkpoint in all_of_them[1:]:
        with torch.inference_mode():
            expected = torch.sigmoid(checkpoint.network()(with_candidates(batch, ids.long(), numbers)))
            found = rivals[checkpoint.config.name].pctr(batch, ads)
        by_bytes = checkpoint.config.model.kind in ("dqm", "dssm")
        np.testing.assert_allclose(found, expected, atol=0.01 if by_bytes else 1e-6)
    np.testing.assert_array_equal(
        rivals["tiny-qscore"].pctr(batch, ads), all_of_them[0].qscore().scores[FIRST_KNOWN + ads]
    )


def test_the_two_towers_of_the_funnel_are_one_of_them(figures: dict[str, float]) -> None:
    for name in ("recall_after_prerank", "ecpm_lost"):
        assert figures[f"funnel.tiny-dqm.{name}"] == figures[f"funnel.{name}"]
    assert figures["funnel.tiny-dqm.multiply_adds"] == 7, "six and a bias"
    assert figures["funnel.tiny-dssm.multiply_adds"] == 6


def test_the_fine_ranker_itself_keeps_what_qscore_left(figures: dict[str, float]) -> None:
    """Twenty are kept, ten are asked for."""
    assert figures["funnel.tiny-din.recall_after_prerank"] == figures["funnel.recall_after_qscore"] < 1
    for name in ("tiny-qscore", "tiny-dqm", "tiny-dssm", "tiny-cold"):
        assert figures[f"funnel.{name}.recall_after_prerank"] <= figures["funnel.recall_after_qscore"]
        assert figures[f"funnel.{name}.ecpm_lost"] >= figures["funnel.tiny-din.ecpm_lost"]
    costs = [figures[f"funnel.{name}.multiply_adds"] for name in ("tiny-qscore", "tiny-dqm", "tiny-cold", "tiny-din")]
    assert costs == sorted(costs)
    assert costs[0] == 0
    assert all(figures[f"funnel.tiny-{name}.ms"] > 0 for name in ("qscore", "dqm", "dssm", "cold", "din"))


def test_qscore_alone_keeps_the_most_worthy(market: Market, trained: Trained, tmp_path: Path) -> None:
    """As many as a smaller Qscore stage would leave; no two scores are equal, because ties may go either way."""
    scores = np.random.default_rng(0).random(len(market.data.ads.fields)).astype(np.float32)
    np.savez(tmp_path / "qscore.npz", scores=scores, mean=0.1, strength=10.0)
    qscore = replace(trained.qscore, folder=tmp_path)
    stages, rivals = (trained.finerank, trained.prerank, qscore), prerankers([qscore], market.data)
    found = measure_funnel(*stages, market.data, "test", FunnelSizes(150, 90, 20), REQUESTS, rivals=rivals)
    smaller = measure_funnel(*stages, market.data, "test", FunnelSizes(150, 20, 20), REQUESTS)
    assert found["funnel.tiny-qscore.recall_after_prerank"] == smaller["funnel.recall_after_qscore"]
    assert found["funnel.tiny-qscore.ecpm_lost"] == pytest.approx(smaller["funnel.ecpm_lost"])


def test_without_others_there_are_the_usual_figures_only(
    market: Market, trained: Trained, figures: dict[str, float]
) -> None:
    stages = trained.finerank, trained.prerank, trained.qscore
    usual = measure_funnel(*stages, market.data, "test", SIZES, REQUESTS)
    assert usual == {name: value for name, value in figures.items() if name.count(".") == 1}


def test_the_table_has_a_line_for_each(rivals: dict[str, PreRanker], figures: dict[str, float]) -> None:
    head, *lines = table(list(rivals), figures).splitlines()
    assert head.split() == ["pre-ranker", "recall_after_prerank", "ecpm_lost", "multiply_adds", "ms"]
    assert [line.split()[0] for line in lines] == list(rivals)
    assert f"{figures['funnel.tiny-cold.ecpm_lost']:.4f}" in lines[3]


def test_two_of_one_name_are_refused(market: Market, trained: Trained) -> None:
    with pytest.raises(ConfigError, match="'tiny-din' is compared already"):
        prerankers([trained.finerank, trained.qscore, trained.finerank], market.data)


def test_other_data_are_refused(market: Market, trained: Trained) -> None:
    with pytest.raises(ConfigError, match="was trained on data 000000000000"):
        prerankers([replace(trained.qscore, data_fingerprint="0" * 64)], market.data)
