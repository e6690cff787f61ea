"""Targeted ads: shown and clicked only where they may be, and nothing else changes when there are none."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.data.spec import read_spec
from models.marketplace.files import dataset_spec, write_marketplace
from models.marketplace.log import simulate
from models.marketplace.spec import MarketplaceSpec
from models.marketplace.truth import Truth
from models.marketplace.world import ad_rows, build_world, user_rows

SPEC = MarketplaceSpec(
    ads=120, users=400, impressions=12_000, categories=5, brands=20, candidates=30, targeted=0.5, seed=6
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("targeted") / "data"
    write_marketplace(SPEC, out, lambda _: None)
    return out


def test_half_of_the_ads_are_targeted_in_all_ways() -> None:
    world = build_world(SPEC.model_copy(update={"ads": 3000}))
    assert world.targets is not None
    by_scene, by_region = world.targets.scenes < 7, world.targets.regions < 15
    assert world.targets.scenes.min() > 0
    assert world.targets.regions.min() > 0
    assert (by_scene | by_region).sum() <= 1500
    assert (by_scene & ~by_region).sum() > 300
    assert (by_region & ~by_scene).sum() > 300
    assert (by_region & by_scene).sum() > 300


def test_ads_are_shown_where_they_may_be(folder: Path) -> None:
    """From the files alone, as a reader sees them."""
    log = pl.read_parquet(folder / "log/*.parquet")
    ads = pl.read_parquet(folder / "ads.parquet").select("ad_id", "scenes", "regions")
    shown = log.join(ads, on="ad_id")
    for value, targets in (("scene", "scenes"), ("region", "regions")):
        fits = (pl.col(targets).list.len() == 0) | pl.col(targets).list.contains(pl.col(value))
        assert shown.select(fits.all()).item()
        assert shown.filter(pl.col(targets).list.len() > 0).height > 1000
    assert shown.group_by("request_id").agg(pl.col("ad_id").n_unique() == 30)["ad_id"].all()
    assert set(log["region"]) == set(SPEC.regions)


def test_nobody_begins_with_a_behaviour_elsewhere(folder: Path) -> None:
    world = build_world(SPEC)
    users = pl.read_parquet(folder / "users.parquet").explode("initial_history", empty_as_null=False, keep_nulls=False)
    ads = ad_rows(users["initial_history"].to_numpy())[:, None]
    assert world.eligible(ads, user_rows(users["user_id"].to_numpy()), None).all()
    assert world.targets is not None
    assert (world.targets.regions[ads] < 15).sum() > 100


def test_the_description_says_what_ads_are_targeted_by(folder: Path) -> None:
    spec = read_spec(folder / "dataset.yaml")
    assert spec == dataset_spec(SPEC)
    assert [(rule.context, rule.ad) for rule in spec.targeting] == [("scene", "scenes"), ("region", "regions")]


def test_without_targeting_nothing_is_different() -> None:
    """Neither columns nor draws: only the ads shown differ between a world with targets and the one without."""
    plain = SPEC.model_copy(update={"targeted": 0.0})
    world, targeted = build_world(plain), build_world(SPEC)
    assert world.targets is None
    assert dataset_spec(plain).targeting == ()
    for name in ("category", "brand", "bid", "appeal"):
        np.testing.assert_array_equal(getattr(world.ads, name), getattr(targeted.ads, name))
    np.testing.assert_array_equal(world.users.city, targeted.users.city)
    each = next(simulate(Truth(world), world.first_histories()))
    assert "region" not in each.frame(plain).columns
    assert world.eligible(each.ads, each.users, each.scenes).all()
    assert not targeted.eligible(each.ads, each.users, each.scenes).all()
