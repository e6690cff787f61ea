import math

import numpy as np
import pytest

from models.marketplace.spec import Effects, MarketplaceSpec
from models.marketplace.truth import Truth
from models.marketplace.world import build_world

PLAIN = Effects(
    bias=-1.0,
    quality=0,
    appeal=0,
    brand=0,
    category=0,
    age_by_category=0,
    gender_by_category=0,
    city=0,
    price_gap=0,
    scene=0,
    scene_by_category=0,
    position=0,
    interest=0,
    loyalty=0,
    fatigue=0,
)


def truth_of(**effects: float) -> Truth:
    spec = MarketplaceSpec(ads=300, users=200, impressions=100, categories=4, brands=12, history_length=5)
    return Truth(build_world(spec.model_copy(update={"effects": PLAIN.model_copy(update=effects)})))


def logit_of(truth: Truth, ad: int, history: list[int], *, user: int = 0, scene: int = 0, position: int = 0) -> float:
    padded = [-1] * (5 - len(history)) + history
    p = truth.true_ctr(np.array([user]), np.array([ad]), np.array([scene]), np.array([position]), np.array([padded]))
    assert p.dtype == np.float32
    return math.log(p[0] / (1 - p[0]))


def relatives(truth: Truth) -> tuple[int, int, int, int]:
    """An ad, another of its brand, one of its category but not its brand, one of another category."""
    ads = truth.world.ads
    brand = next(b for b in range(12) if ads.brand_start[b + 1] - ads.brand_start[b] > 1)
    ad, twin = ads.by_brand[ads.brand_start[brand] : ads.brand_start[brand] + 2].tolist()
    category = ads.category[ad]
    cousins = np.flatnonzero((ads.category == category) & (ads.brand != brand))
    return ad, twin, int(cousins[0]), int(np.flatnonzero(ads.category != category)[0])


@pytest.fixture(scope="module")
def relative_ads() -> tuple[int, int, int, int]:
    return relatives(truth_of())


def test_without_effects_only_the_bias_is_left() -> None:
    assert logit_of(truth_of(), 7, [7, 8]) == pytest.approx(-1.0, abs=1e-5)


def test_behaviours_in_the_category_add_up_and_saturate(relative_ads: tuple[int, int, int, int]) -> None:
    ad, _, cousin, stranger = relative_ads
    truth = truth_of(interest=1.5, interest_scale=3.0, half_life=1e9)
    assert logit_of(truth, ad, []) == pytest.approx(-1.0, abs=1e-5)
    assert logit_of(truth, ad, [stranger] * 5) == pytest.approx(-1.0, abs=1e-5)
    for n in (1, 2, 5):
        expected = -1.0 + 1.5 * (1 - math.exp(-n / 3))
        assert logit_of(truth, ad, [cousin] * n) == pytest.approx(expected, abs=1e-5)


def test_older_behaviours_count_less(relative_ads: tuple[int, int, int, int]) -> None:
    ad, _, cousin, stranger = relative_ads
    truth = truth_of(interest=1.0, interest_scale=1.0, half_life=2.0)
    for age in range(5):
        found = logit_of(truth, ad, [cousin] + [stranger] * age)
        assert found == pytest.approx(-1.0 + 1 - math.exp(-(2 ** (-age / 2))), abs=1e-5)


def test_the_brand_counts_beside_the_category(relative_ads: tuple[int, int, int, int]) -> None:
    ad, twin, cousin, _ = relative_ads
    truth = truth_of(loyalty=1.4, half_life=1e9)
    assert logit_of(truth, ad, [cousin]) == pytest.approx(-1.0, abs=1e-5)
    assert logit_of(truth, ad, [twin]) == pytest.approx(-1.0 + 1.4 * (1 - math.exp(-1)), abs=1e-5)


def test_the_same_ad_tires(relative_ads: tuple[int, int, int, int]) -> None:
    ad, twin, *_ = relative_ads
    truth = truth_of(fatigue=0.8)
    assert logit_of(truth, ad, [twin]) == pytest.approx(-1.0, abs=1e-5)
    assert logit_of(truth, ad, [ad, twin, ad]) == pytest.approx(-1.8, abs=1e-5)


def test_lower_places_lose() -> None:
    truth = truth_of(position=0.15)
    assert logit_of(truth, 0, [], position=9) == pytest.approx(-1.0 - 0.15 * math.log(10), abs=1e-5)


def test_scenes_differ_and_their_effects_cancel() -> None:
    found = [logit_of(truth_of(scene=0.5), 0, [], scene=scene) for scene in range(3)]
    assert len({round(x, 4) for x in found}) == 3
    assert sum(found) / 3 == pytest.approx(-1.0, abs=1e-5)


def test_price_gap_is_the_distance_of_spending_and_price() -> None:
    truth = truth_of(price_gap=0.2)
    gap = abs(int(truth.world.users.spending[11]) - int(truth.world.ads.price[42]))
    assert logit_of(truth, 42, [], user=11) == pytest.approx(-1.0 - 0.2 * gap, abs=1e-5)


def test_a_grid_equals_single_impressions() -> None:
    spec = MarketplaceSpec(ads=300, users=200, impressions=100, categories=4, brands=12)
    truth = Truth(build_world(spec))
    random = np.random.default_rng(0)
    users, scenes = random.integers(0, 200, 50), random.integers(0, 3, 50)
    ads, positions = random.integers(0, 300, (50, 7)), random.integers(0, 10, (50, 7))
    histories = truth.world.first_histories()[users]
    grid = truth.true_ctr(users, ads, scenes, positions, histories)
    again = np.repeat(np.arange(50), 7)
    flat = truth.true_ctr(users[again], ads.ravel(), scenes[again], positions.ravel(), histories[again])
    np.testing.assert_allclose(grid.ravel(), flat, rtol=1e-5)


def test_a_short_history_may_come_without_padding() -> None:
    truth = truth_of(interest=1.0, loyalty=1.0, fatigue=0.5)
    one = (np.array([3]), np.array([5]), np.array([1]), np.array([0]))
    short, padded = np.array([[8, 5]]), np.array([[-1, -1, -1, 8, 5]])
    np.testing.assert_array_equal(truth.true_ctr(*one, short), truth.true_ctr(*one, padded))
    assert truth.true_ctr(*one, np.empty((1, 0), dtype=np.int64)).shape == (1,)


def test_draws_follow_the_probability() -> None:
    spec = MarketplaceSpec(ads=300, users=200, impressions=100, categories=4, brands=12)
    truth = Truth(build_world(spec))
    random = np.random.default_rng(5)
    n = 200_000
    users, ads, scenes = random.integers(0, 200, n), random.integers(0, 300, n), random.integers(0, 3, n)
    histories, positions = truth.world.first_histories()[users], np.zeros(n, dtype=np.int64)
    p = truth.true_ctr(users, ads, scenes, positions, histories).astype(np.float64)
    clicks = truth.draw(users, ads, scenes, positions, histories, random=random)
    decile = np.argsort(np.argsort(p)) * 10 // n
    z = [
        (clicks[decile == d].sum() - p[decile == d].sum()) / math.sqrt((p * (1 - p))[decile == d].sum())
        for d in range(10)
    ]
    assert max(map(abs, z)) < 3.5, z


def ctr_of_all(drift: float, **effects: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Logits of every ad of a marketplace of 300 brands, for one user without a history."""
    spec = MarketplaceSpec(ads=300, users=200, impressions=100, categories=4, brands=300, history_length=5)
    world = build_world(spec.model_copy(update={"effects": PLAIN.model_copy(update=effects)}))
    none = np.full((300, 5), -1)
    zeros = np.zeros(300, dtype=np.int64)
    p = Truth(world, drift).true_ctr(zeros, np.arange(300), zeros, zeros, none).astype(np.float64)
    return np.asarray(np.log(p) - np.log1p(-p))


def test_tastes_turn_away_and_matter_as_much_as_before() -> None:
    first, near, other, opposite = (ctr_of_all(drift, brand=0.5) for drift in (0.0, 0.2, 1.0, 2.0))
    assert np.corrcoef(first, near)[0, 1] == pytest.approx(math.cos(0.1 * math.pi), abs=0.05)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.2
    assert np.corrcoef(first, opposite)[0, 1] == pytest.approx(-1)
    for each in (first, near, other):
        assert each.std() == pytest.approx(0.5, rel=0.15)


def test_what_is_no_taste_does_not_drift() -> None:
    assert (ctr_of_all(1.0, quality=0.5, price_gap=0.2) == ctr_of_all(0.0, quality=0.5, price_gap=0.2)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": [200]}, r"users range from 200 to 200, they must be in \[0, 200\)"),
        ({"ads": [300]}, "ads range from 300"),
        ({"ads": [-1]}, "ads range from -1"),
        ({"scenes": [3]}, "scenes range from 3"),
        ({"positions": [-1]}, "positions range from -1"),
        ({"histories": [[300]]}, "histories range from 300"),
        ({"histories": [[-2]]}, "histories range from -2"),
        ({"histories": [[1, 2, 3, 4, 5, 6]]}, "histories have 6 behaviours, at most 5 count"),
        ({"histories": [1]}, r"must be \[n\], \[n\] and \[n, L\]"),
        ({"scenes": [0, 0]}, r"must be \[n\], \[n\] and \[n, L\]"),
        ({"positions": [0, 1]}, r"ads and positions must both be \[1\] or \[1, k\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: dict[str, list[int]], message: str) -> None:
    given = {"users": [0], "ads": [0], "scenes": [0], "positions": [0], "histories": [[1]]} | change
    with pytest.raises(ValueError, match=message):
        truth_of().true_ctr(*(np.array(given[name]) for name in ("users", "ads", "scenes", "positions", "histories")))
