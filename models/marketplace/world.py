"""The simulated ads and users, as arrays: no Python object per ad or user.

Ads and users are numbered by *row* (0..n-1) here. Files and HTTP carry external ids, which are rows scrambled by a
fixed bijection, so that nothing can rely on ids being row numbers: `ad_ids`, `ad_rows`, `user_ids`, `user_rows`.

Ads are in order of popularity: row 0 is the most popular one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.marketplace.looks import Looks, build_looks
from models.marketplace.spec import AGE_BANDS, GENDERS, LEVELS, MarketplaceSpec

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Rows = npt.NDArray[np.integer]

PRIME = 1_000_000_007
AD_FACTOR = 654_188_429
USER_FACTOR = 362_437_069
IMAGE_FACTOR = 521_288_629
USERS_AT_ONCE = 1 << 16
"""Users whose first histories are drawn together: bounds the temporary arrays to some 50 MB."""


@dataclass(frozen=True, slots=True)
class Ads:
    """Columns of [ads], and an index of ads by brand."""

    category: npt.NDArray[np.int16]
    brand: npt.NDArray[np.int32]
    advertiser: npt.NDArray[np.int32]
    price: npt.NDArray[np.int8]
    """1..5"""
    quality: Float32
    """Standard normal, visible."""
    appeal: Float32
    """The ad's own part of the logit, not visible."""
    bid: Float32
    """Paid for a click."""
    by_brand: npt.NDArray[np.int32]
    """Ad rows grouped by brand, the popular ones first."""
    brand_start: Int64
    """[brands + 1]: brand b has by_brand[brand_start[b]:brand_start[b + 1]]."""


@dataclass(frozen=True, slots=True)
class Users:
    """Columns of [users] or [users, interests]."""

    age: npt.NDArray[np.int8]
    gender: npt.NDArray[np.int8]
    city: npt.NDArray[np.int16]
    spending: npt.NDArray[np.int8]
    """1..5"""
    activity: Float32
    """How often a user comes, mean 1."""
    interest: npt.NDArray[np.int16]
    """Categories."""
    favourite: npt.NDArray[np.int32]
    """A brand of each of those categories."""
    reach: Float32
    """Running sum of the interests' weights; the last column is 1."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Where each ad may be shown: bit i of [ads] is scene, or region, i."""

    scenes: npt.NDArray[np.uint16]
    regions: npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class World:
    """One simulated marketplace."""

    spec: MarketplaceSpec
    category_start: Int64
    """[categories + 1]: category c has the brands category_start[c]..category_start[c + 1] - 1."""
    brand_reach: npt.NDArray[np.float64]
    """[brands + 1]: running sum of the brands' shares of all ads."""
    ads: Ads
    users: Users
    targets: Targets | None
    """None: every ad may be shown everywhere."""
    launch: Float32 | None
    """[ads]: which share of the log is over when an ad is first shown, 0 for those that were there before. None: all
    were."""
    looks: Looks | None
    """None: there are no images."""

    def regions(self, users: Rows) -> Int64:
        """The region of each user."""
        return np.asarray(self.users.city[users].astype(np.int64) % len(self.spec.regions))

    def eligible(self, ads: Rows, users: Rows, scenes: Rows | None) -> npt.NDArray[np.bool_]:
        """Whether each ad of [n, k] may be shown to users [n] in scenes [n]; None: in any scene."""
        if self.targets is None:
            return np.ones(ads.shape, dtype=np.bool_)
        fits = self.targets.regions[ads] >> self.regions(users)[:, None] & 1
        if scenes is not None:
            fits &= self.targets.scenes[ads] >> scenes[:, None] & 1
        return fits.astype(np.bool_)

    def present(self, ads: Rows, now: float) -> npt.NDArray[np.bool_]:
        """Whether each ad is there when the share `now` of the log is over, in the shape of ads."""
        return np.ones(ads.shape, dtype=np.bool_) if self.launch is None else self.launch[ads] <= now

    def draw_by_interest(self, users: Rows, k: int, random: np.random.Generator) -> Int64:
        """k ads for each user drawn by interests, repeats allowed: users [n] -> ads [n, k]."""
        spec, shape = self.spec, (len(users), k)
        which = (random.random(shape)[:, :, None] > self.users.reach[users, None, :-1]).sum(axis=2)
        category = np.take_along_axis(self.users.interest[users], which, axis=1)
        favourite = np.take_along_axis(self.users.favourite[users], which, axis=1)
        low = self.brand_reach[self.category_start[category]]
        high = self.brand_reach[self.category_start[category + 1]]
        brand = np.searchsorted(self.brand_reach, low + random.random(shape) * (high - low), side="right") - 1
        # Rounding may reach the first brand of the next category.
        brand = np.clip(brand, self.category_start[category], self.category_start[category + 1] - 1)
        brand = np.where(random.random(shape) < spec.favourite, favourite, brand)
        start = self.ads.brand_start[brand]
        rank = zipf(random.random(shape), self.ads.brand_start[brand + 1] - start, spec.zipf)
        return np.asarray(self.ads.by_brand[start + rank], dtype=np.int64)

    def draw_popular(self, shape: tuple[int, ...], random: np.random.Generator) -> Int64:
        """Ads drawn by popularity."""
        return zipf(random.random(shape), np.int64(self.spec.ads), self.spec.zipf)

    def first_histories(self) -> npt.NDArray[np.int32]:
        """What each user did before the log begins: ad rows [users, history_length], the newest last, -1 for none."""
        spec = self.spec
        random = _stream(spec, 3)
        histories = np.full((spec.users, spec.history_length), -1, dtype=np.int32)
        for first in range(0, spec.users, USERS_AT_ONCE):
            users = np.arange(first, min(first + USERS_AT_ONCE, spec.users))
            length = 1 + random.exponential(spec.history_mean, len(users)).astype(np.int64)
            length[random.random(len(users)) < spec.history_empty] = 0
            shape = (len(users), spec.history_length)
            by_interest = random.random(shape) < 0.85
            ads = np.where(
                by_interest,
                self.draw_by_interest(users, spec.history_length, random),
                self.draw_popular(shape, random),
            )
            # At least half of the ads are for everywhere, and at least half of all were there before.
            while not (fits := self.eligible(ads, users, None) & self.present(ads, 0.0)).all():
                ads[~fits] = self.draw_popular((int((~fits).sum()),), random)
            age = np.arange(spec.history_length, 0, -1)
            histories[users] = np.where(age <= length[:, None], ads, -1)
        return histories


def build_world(spec: MarketplaceSpec) -> World:
    """All ads and users of a marketplace; 10^7 ads take about 0.3 GB, 10^6 users 0.06 GB; images of width V
    another 2·V + 16 bytes an ad."""
    random = _stream(spec, 0)
    # One brand for each category, the others by the category's weight.
    weight = _shares(spec.categories, spec.zipf, random)
    extra = random.choice(spec.categories, spec.brands - spec.categories, p=weight)
    per_category = 1 + np.bincount(extra, minlength=spec.categories)
    category_start = np.concatenate(([0], np.cumsum(per_category)))
    brand_reach = np.concatenate(([0.0], np.cumsum(_shares(spec.brands, spec.zipf, random))))
    ads = _build_ads(spec, np.repeat(np.arange(spec.categories), per_category), brand_reach, _stream(spec, 1))
    return World(
        spec=spec,
        category_start=category_start,
        brand_reach=brand_reach / brand_reach[-1],
        ads=ads,
        users=_build_users(spec, weight, category_start, _stream(spec, 2)),
        targets=_build_targets(spec, _stream(spec, 6)) if spec.targeted else None,
        launch=_build_launches(spec, _stream(spec, 7)) if spec.launched else None,
        looks=build_looks(spec, ads.appeal) if spec.images else None,
    )


def _build_ads(
    spec: MarketplaceSpec, category_of: Int64, brand_reach: npt.NDArray[np.float64], random: np.random.Generator
) -> Ads:
    n = spec.ads
    brand = (np.searchsorted(brand_reach, random.random(n, dtype=np.float32), side="right") - 1).astype(np.int32)
    np.minimum(brand, spec.brands - 1, out=brand)
    # Every brand has an ad, anywhere in the order of popularity.
    places = random.choice(n, spec.brands, replace=False, shuffle=False)
    brand[places] = random.permutation(spec.brands)
    advertiser = ((brand * 7 + random.integers(0, 3, n, dtype=np.int32)) % spec.advertisers).astype(np.int32)
    level = random.normal(0.0, 0.5, spec.advertisers).astype(np.float32)
    return Ads(
        category=category_of[brand].astype(np.int16),
        brand=brand,
        advertiser=advertiser,
        price=random.integers(1, LEVELS + 1, n, dtype=np.int8),
        quality=random.standard_normal(n, dtype=np.float32),
        appeal=random.standard_normal(n, dtype=np.float32) * np.float32(spec.effects.appeal),
        bid=_bids(level[advertiser] + random.standard_normal(n, dtype=np.float32) * np.float32(0.4)),
        by_brand=np.argsort(brand, kind="stable").astype(np.int32),
        brand_start=np.concatenate(([0], np.cumsum(np.bincount(brand, minlength=spec.brands)))),
    )


def _build_targets(spec: MarketplaceSpec, random: np.random.Generator) -> Targets:
    """Of the targeted ads a third by scene, a third by region, a third by both; each for about half of the values."""
    targeted = random.permutation(spec.ads) < int(spec.targeted * spec.ads)
    kind = random.integers(0, 3, spec.ads)

    def some(values: int, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
        every = (1 << values) - 1
        return np.where(chosen, random.integers(1, every + 1, spec.ads), every).astype(np.uint16)

    return Targets(some(len(spec.scenes), targeted & (kind != 1)), some(len(spec.regions), targeted & (kind != 0)))


def _build_launches(spec: MarketplaceSpec, random: np.random.Generator) -> Float32:
    later = random.permutation(spec.ads) < int(spec.launched * spec.ads)
    return np.where(later, 1.0 - random.random(spec.ads), 0.0).astype(np.float32)


def _build_users(
    spec: MarketplaceSpec, weight: npt.NDArray[np.float64], category_start: Int64, random: np.random.Generator
) -> Users:
    n, k = spec.users, spec.interests
    interest = random.choice(spec.categories, (n, k), p=weight)
    brands = category_start[interest + 1] - category_start[interest]
    reach = np.cumsum(random.standard_gamma(1.0, (n, k), dtype=np.float32) + np.float32(1e-6), axis=1)
    activity = random.standard_gamma(2.0, n, dtype=np.float32) / 2 + np.float32(0.05)
    return Users(
        age=random.integers(0, len(AGE_BANDS), n, dtype=np.int8),
        gender=random.choice(len(GENDERS), n, p=(0.49, 0.49, 0.02)).astype(np.int8),
        city=zipf(random.random(n), np.int64(spec.cities), spec.zipf).astype(np.int16),
        spending=random.integers(1, LEVELS + 1, n, dtype=np.int8),
        activity=np.asarray(activity, dtype=np.float32),
        interest=interest.astype(np.int16),
        favourite=(category_start[interest] + (random.random((n, k)) * brands).astype(np.int64)).astype(np.int32),
        reach=np.asarray(reach / reach[:, -1:], dtype=np.float32),
    )


def zipf(uniform: npt.NDArray[np.float64], n: npt.NDArray[np.int64] | np.int64, exponent: float) -> Int64:
    """Ranks 0..n-1 with odds of about (rank + 1) ** -exponent, by the inverse of the continuous distribution."""
    power = 1.0 - exponent
    x = (1.0 + uniform * ((n + 1.0) ** power - 1.0)) ** (1.0 / power)
    return np.minimum(x.astype(np.int64) - 1, n - 1)


def ad_ids(rows: Rows) -> Int64:
    """External ids of ad rows."""
    return _scramble(rows, AD_FACTOR)


def ad_rows(ids: npt.NDArray[np.integer]) -> Int64:
    """Rows of external ad ids; an id that stands for no ad gives a row beyond the last."""
    return _unscramble(ids, AD_FACTOR)


def image_ids(rows: Rows) -> Int64:
    """External ids of the images of ad rows."""
    return _scramble(rows, IMAGE_FACTOR)


def user_ids(rows: Rows) -> Int64:
    """External ids of user rows."""
    return _scramble(rows, USER_FACTOR)


def user_rows(ids: npt.NDArray[np.integer]) -> Int64:
    """Rows of external user ids; an id that stands for no user gives a row beyond the last."""
    return _unscramble(ids, USER_FACTOR)


def _scramble(rows: Rows, factor: int) -> Int64:
    """A bijection of 1..PRIME-1: products stay below 10^18, within int64."""
    return (rows.astype(np.int64) + 1) * factor % PRIME


def _unscramble(ids: Rows, factor: int) -> Int64:
    return ids.astype(np.int64) % PRIME * pow(factor, -1, PRIME) % PRIME - 1


def _shares(n: int, exponent: float, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Zipf shares of n things in random order, summing to 1."""
    weight = random.permutation(np.arange(1, n + 1) ** -exponent)
    return np.asarray(weight / weight.sum(), dtype=np.float64)


def _stream(spec: MarketplaceSpec, stream: int) -> np.random.Generator:
    """An independent source of random numbers for each part of the world."""
    return np.random.default_rng([spec.seed, stream])


def _bids(logarithms: Float32) -> Float32:
    """Bids in whole cents, at least one: rounded in double precision, so that 5.43 is not stored as 5.4300003."""
    return (np.round(np.exp(logarithms.astype(np.float64)), 2) + 0.01).astype(np.float32)
