"""The smoothed rate by hand, and a prior whose strength is that of the ads."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.data.prepare import prepare
from models.data.prepared import PreparedData
from models.data.spec import DataError, DatasetSpec
from models.networks.config import QscoreConfig
from models.numerics import computing
from models.qscore import continue_qscore, fit_qscore, fit_strength, log_beta
from tests.market import Market

FITTED = QscoreConfig(kind="qscore")


def tiny(folder: Path, clicks: dict[str, list[int]], never: tuple[str, ...] = ()) -> PreparedData:
    """Training impressions of each ad with these labels; one more impression of the first ad validates."""
    rows = [(ad, label) for ad, labels in clicks.items() for label in labels]
    first = next(iter(clicks))
    pl.DataFrame(
        {
            "user": [i % 5 for i in range(len(rows) + 1)],
            "ad": [ad for ad, _ in rows] + [first],
            "time": [*range(len(rows)), 1000],
            "click": [label for _, label in rows] + [1],
        }
    ).write_parquet(folder / "log.parquet")
    pl.DataFrame({"ad": [*clicks, *never]}).write_parquet(folder / "ads.parquet")
    spec = DatasetSpec.model_validate(
        {
            "name": "tiny",
            "source": "table",
            "files": {"log": "log.parquet", "ads": "ads.parquet"},
            "label": "click",
            "user": "user",
            "ad": "ad",
            "time": "time",
            "ad_features": [{"column": "ad"}],
            "user_features": [{"column": "user"}],
            "split": {"valid_from": 1000},
        }
    )
    return prepare(spec, folder, folder / "out", progress=False)


def test_the_formula_by_hand(tmp_path: Path) -> None:
    data = tiny(tmp_path, {"good": [1, 1, 1, 0], "bad": [0, 0, 0, 0, 0, 0]}, never=("new",))
    qscore = fit_qscore(QscoreConfig(kind="qscore", strength=5), data)
    row = {ad: data.ads.index.id_of(ad) for ad in ("good", "bad", "new")}
    # 3 clicks in 10 impressions: the prior is 1.5 clicks in 5.
    assert (qscore.mean, qscore.strength) == (0.3, 5.0)
    assert qscore.scores[row["good"]] == pytest.approx((3 + 1.5) / (4 + 5))
    assert qscore.scores[row["bad"]] == pytest.approx((0 + 1.5) / (6 + 5))
    assert qscore.scores[row["new"]] == pytest.approx(0.3), "never shown: the prior's mean"
    assert qscore.scores[:2] == pytest.approx([0.0, 0.3]), "padding, and the unknown ad"
    assert qscore.scores.dtype == np.float32
    assert len(qscore.scores) == 5


def test_only_the_training_split_counts(market: Market) -> None:
    data = market.data
    shown, clicked = np.zeros(len(data.ads.fields)), np.zeros(len(data.ads.fields))
    for part in data.parts("train"):
        for request in pl.read_parquet(part).iter_rows(named=True):
            for ad, label in zip(request["ads"], request["labels"], strict=True):
                shown[ad] += 1
                clicked[ad] += label
    qscore = fit_qscore(QscoreConfig(kind="qscore", strength=20), data)
    expected = (clicked + 20 * clicked.sum() / shown.sum()) / (shown + 20)
    np.testing.assert_allclose(qscore.scores[1:], expected[1:], rtol=1e-6)
    fitted = fit_qscore(FITTED, data)
    assert fitted.strength == pytest.approx(fit_strength(shown[2:], clicked[2:], fitted.mean))


@pytest.mark.parametrize("strength", [3.0, 40.0, 300.0])
def test_a_known_strength_is_found_again(strength: float) -> None:
    random = np.random.default_rng(1)
    mean = 0.12
    shown = random.integers(0, 600, 4000).astype(np.float64)
    clicked = random.binomial(shown.astype(int), random.beta(strength * mean, strength * (1 - mean), 4000))
    assert fit_strength(shown, clicked.astype(np.float64), mean) == pytest.approx(strength, rel=0.12)


def test_the_likelihood_is_finite_where_denormals_are_zero() -> None:
    a = np.linspace(0.5, 200, 1500)[:, None] + np.zeros(40)
    b = np.arange(1, 41) * 5.25 + np.zeros((1500, 1))
    expected = np.vectorize(lambda x, y: math.lgamma(x) + math.lgamma(y) - math.lgamma(x + y))(a, b)
    with computing(1):
        np.testing.assert_allclose(log_beta(a, b), expected, rtol=1e-12, atol=1e-10)


def test_ads_that_look_alike_get_a_strong_prior_and_opposite_ones_a_weak_one() -> None:
    random = np.random.default_rng(1)
    shown = np.full(3000, 200.0)
    assert fit_strength(shown, random.binomial(200, 0.1, 3000).astype(np.float64), 0.1) > 1000
    assert fit_strength(shown, np.where(np.arange(3000) % 2 == 0, 0.0, 200.0), 0.5) < 0.1


@pytest.mark.parametrize("label", [0, 1])
def test_without_both_outcomes_there_is_no_rate(tmp_path: Path, label: int) -> None:
    data = tiny(tmp_path, {"a": [label] * 4, "b": [label] * 2})
    with pytest.raises(DataError, match=f"train has {6 * label} clicks in 6 impressions, no rate to smooth") as caught:
        fit_qscore(FITTED, data)
    assert str(data.folder) in str(caught.value)


def test_continued_each_ad_goes_on_from_its_earlier_score(tmp_path: Path) -> None:
    data = tiny(tmp_path, {"good": [1, 1, 1, 0], "bad": [0, 0, 0, 0, 0, 0]}, never=("new",))
    row = {ad: data.ads.index.id_of(ad) for ad in ("good", "bad", "new")}
    before = np.full(len(data.ads.fields), 0.05, dtype=np.float32)
    before[row["good"]] = 0.2
    qscore = continue_qscore(QscoreConfig(kind="qscore", strength=5), data, before)
    level = 3 / (4 * 0.2 + 6 * 0.05)  # what is shown was clicked so much more often than foretold
    assert qscore.scores[row["good"]] == pytest.approx((3 + 5 * 0.2 * level) / (4 + 5))
    assert qscore.scores[row["bad"]] == pytest.approx((0 + 5 * 0.05 * level) / (6 + 5))
    assert qscore.scores[row["new"]] == pytest.approx(0.05 * level), "never shown: as it was, at the new level"
    assert qscore.scores[0] == 0.0


def test_an_earlier_score_that_still_foretells_the_clicks_counts_for_much(market: Market) -> None:
    whole = fit_qscore(FITTED, market.data)
    again = continue_qscore(FITTED, market.data, whole.scores)
    assert again.strength > whole.strength
    shuffled = np.random.default_rng(0).permutation(whole.scores)
    assert continue_qscore(FITTED, market.data, shuffled).strength < again.strength
