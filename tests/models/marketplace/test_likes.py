"""Likes follow clicks with the probability that is written, and change nothing else of a marketplace."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.data.spec import LabelColumn, read_spec
from models.marketplace.command import main
from models.marketplace.files import dataset_spec, write_marketplace
from models.marketplace.likes import Likes
from models.marketplace.spec import AGE_BANDS, MarketplaceSpec
from models.marketplace.world import ad_rows, build_world, user_rows
from models.metrics import auc

SPEC = MarketplaceSpec(ads=120, users=400, impressions=40_000, categories=5, brands=20, likes=0.2, seed=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("likes") / "data"
    write_marketplace(SPEC, out, lambda _: None)
    return out


@pytest.fixture(scope="module")
def log(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "log/*.parquet")


def test_the_rest_is_that_of_the_marketplace_without_likes(folder: Path, log: pl.DataFrame, tmp_path: Path) -> None:
    write_marketplace(SPEC.model_copy(update={"likes": 0.0}), tmp_path / "plain", lambda _: None)
    assert pl.read_parquet(tmp_path / "plain/log/*.parquet").equals(log.drop("like", "true_like"))
    for name in ("ads", "users"):
        assert (tmp_path / f"plain/{name}.parquet").read_bytes() == (folder / f"{name}.parquet").read_bytes()
    assert "labels" not in (tmp_path / "plain/dataset.yaml").read_text()


def test_only_clicks_are_liked_as_often_as_is_said(log: pl.DataFrame) -> None:
    assert log.filter(pl.col("click") == 0)["like"].sum() == 0
    true = log["true_like"].to_numpy().astype(np.float64)
    expected, spread = true.sum(), (true * (1 - true)).sum() ** 0.5
    assert abs(log["like"].to_numpy().sum() - expected) < 4 * spread
    assert expected > 500


def test_the_probability_is_the_formula(log: pl.DataFrame) -> None:
    """By its own tables, a plain loop over rows of the files, as a reader sees them."""
    likes, world = Likes(build_world(SPEC)), build_world(SPEC)
    random = np.random.default_rng([SPEC.seed, 7])
    brand, age = random.standard_normal(SPEC.brands), random.standard_normal(len(AGE_BANDS))
    effects = SPEC.effects
    for row in log.sample(50, seed=1).iter_rows(named=True):
        ad, user = int(ad_rows(np.array([row["ad_id"]]))[0]), int(user_rows(np.array([row["user_id"]]))[0])
        z = np.log(row["true_ctr"] / (1 - row["true_ctr"]))
        logit = np.log(0.2 / 0.8) + effects.like_by_click * (z - effects.bias)
        logit += effects.like_by_brand * (brand - brand.mean())[world.ads.brand[ad]]
        logit += effects.like_by_age * (age - age.mean())[world.users.age[user]]
        given = 1 / (1 + np.exp(-logit))
        ctr = np.array([[row["true_ctr"]]], dtype=np.float32)
        assert likes.given_click(np.array([user]), np.array([[ad]]), ctr)[0, 0] == pytest.approx(given, rel=1e-4)
        assert row["true_like"] == pytest.approx(row["true_ctr"] * given, rel=1e-4)


def test_a_like_has_tastes_of_its_own(log: pl.DataFrame) -> None:
    likes = log["like"].to_numpy()
    best = auc(likes, log["true_like"].to_numpy())
    assert 0.6 < auc(likes, log["true_ctr"].to_numpy()) < best - 0.003


def test_the_description_names_the_label(folder: Path) -> None:
    assert read_spec(folder / "dataset.yaml").labels == {"like": LabelColumn(column="like", truth="true_like")}
    assert read_spec(folder / "dataset.yaml") == dataset_spec(SPEC)


def test_equal_seeds_give_equal_likes(log: pl.DataFrame, tmp_path: Path) -> None:
    write_marketplace(SPEC, tmp_path / "again", lambda _: None)
    assert pl.read_parquet(tmp_path / "again/log/*.parquet").equals(log)


def test_a_world_without_likes_has_none() -> None:
    with pytest.raises(ValueError, match="likes is 0"):
        Likes(build_world(SPEC.model_copy(update={"likes": 0.0})))


def test_the_command_draws_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--ads", "100", "--users", "50", "--impressions", "1000", "--brands", "30"]
    assert main(["--out", str(tmp_path / "some"), *sizes, "--likes", "0.3"]) == 0
    assert pl.read_parquet(tmp_path / "some/log/*.parquet")["like"].sum() > 0
    assert main(["--out", str(tmp_path / "many"), *sizes, "--likes", "0.6"]) == 2
    assert "--likes: Input should be less than or equal to 0.5 (got 0.6)" in capsys.readouterr().err
