from dataclasses import fields

import numpy as np
import pytest

from models.marketplace.spec import MarketplaceSpec
from models.marketplace.world import World, ad_ids, ad_rows, build_world, user_ids, user_rows, zipf

SPEC = MarketplaceSpec(ads=800, users=2_000, impressions=100, categories=6, brands=40, seed=3)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(SPEC)


def test_equal_seeds_give_equal_worlds(world: World) -> None:
    again, other = build_world(SPEC), build_world(SPEC.model_copy(update={"seed": 4}))
    for side in ("ads", "users"):
        for field in fields(getattr(world, side)):
            array = getattr(getattr(world, side), field.name)
            np.testing.assert_array_equal(array, getattr(getattr(again, side), field.name))
            assert not np.array_equal(array, getattr(getattr(other, side), field.name)), field.name
    np.testing.assert_array_equal(world.first_histories(), again.first_histories())


def test_every_brand_has_one_category_and_at_least_one_ad(world: World) -> None:
    ads = world.ads
    assert np.bincount(ads.brand, minlength=SPEC.brands).min() >= 1
    assert len({*zip(ads.brand.tolist(), ads.category.tolist(), strict=True)}) == SPEC.brands
    assert set(ads.category.tolist()) == set(range(SPEC.categories))
    for brand in range(SPEC.brands):
        mine = ads.by_brand[ads.brand_start[brand] : ads.brand_start[brand + 1]]
        np.testing.assert_array_equal(mine, np.flatnonzero(ads.brand == brand))


def test_columns_are_in_their_ranges(world: World) -> None:
    assert (int(world.ads.price.min()), int(world.ads.price.max())) == (1, 5)
    assert (int(world.users.spending.min()), int(world.users.spending.max())) == (1, 5)
    assert world.ads.bid.min() > 0
    assert world.ads.advertiser.max() < SPEC.advertisers
    assert world.users.city.max() < SPEC.cities
    np.testing.assert_allclose(world.users.reach[:, -1], 1.0)
    # A favourite brand is one of the interest's category.
    category_of = np.zeros(SPEC.brands, dtype=np.int64)
    category_of[world.ads.brand] = world.ads.category
    np.testing.assert_array_equal(category_of[world.users.favourite], world.users.interest)


def test_interests_drive_what_is_drawn(world: World) -> None:
    users = np.arange(SPEC.users)
    drawn = world.draw_by_interest(users, 20, np.random.default_rng(0))
    mine = (world.ads.category[drawn][:, :, None] == world.users.interest[:, None, :]).any(axis=2)
    assert mine.all()
    favourite = (world.ads.brand[drawn][:, :, None] == world.users.favourite[:, None, :]).any(axis=2)
    assert SPEC.favourite < favourite.mean() < 0.8


def test_first_histories_vary_in_length_and_end_with_the_newest(world: World) -> None:
    histories = world.first_histories()
    there = histories >= 0
    assert (np.diff(there.astype(int), axis=1) >= 0).all(), "padding stands in front only"
    length = there.sum(axis=1)
    assert (length == 0).mean() == pytest.approx(SPEC.history_empty, abs=0.02)
    assert length.max() == SPEC.history_length
    assert 5 < length.mean() < 12
    assert histories.max() < SPEC.ads


def test_external_ids_are_a_bijection_and_no_row_numbers() -> None:
    rows = np.concatenate([np.arange(200_000), np.arange(9_900_000, 10_000_000)])
    for to_id, to_row in ((ad_ids, ad_rows), (user_ids, user_rows)):
        ids = to_id(rows)
        assert np.unique(ids).size == rows.size
        assert ids.min() > 0
        assert abs(float(np.corrcoef(rows, ids)[0, 1])) < 0.05
        np.testing.assert_array_equal(to_row(ids), rows)
    assert not np.array_equal(ad_ids(rows), user_ids(rows))


def test_zipf_draws_ranks_in_the_stated_proportion() -> None:
    ranks = zipf(np.random.default_rng(0).random(400_000), np.int64(1000), 0.7)
    assert (ranks.min(), ranks.max()) == (0, 999)
    counts = np.bincount(ranks)
    # Far from rank 0 the continuous law and the discrete one agree to 1 %.
    assert counts[80:120].sum() / counts[640:960].sum() == pytest.approx((8**0.7) / 8, rel=0.05)


def test_a_million_ads_are_arrays_only() -> None:
    world = build_world(MarketplaceSpec(ads=1_000_000, users=10_000, brands=5_000))
    arrays = [getattr(world.ads, field.name) for field in fields(world.ads)]
    assert all(isinstance(array, np.ndarray) and array.dtype != np.object_ for array in arrays)
    assert sum(array.nbytes for array in arrays) < 30 * 1_000_000
    assert world.ads.brand_start[-1] == 1_000_000
