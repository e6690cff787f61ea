"""Images tell of appeal and style, launched ads are not shown before, and nothing else changes."""

from pathlib import Path

import numpy as np
import pytest

from models.data.prepare import prepare
from models.data.spec import read_spec
from models.marketplace.files import write_marketplace
from models.marketplace.log import simulate
from models.marketplace.looks import build_looks
from models.marketplace.spec import Effects, MarketplaceSpec
from models.marketplace.truth import Truth
from models.marketplace.world import ad_ids, build_world, image_ids
from tests.models.marketplace.test_truth import PLAIN

SPEC = MarketplaceSpec(
    seed=2, ads=400, users=300, impressions=20_000, categories=5, brands=20, images=16, launched=0.5, targeted=0.3
)


def explained(images: np.ndarray, hidden: np.ndarray) -> float:
    """Share of the variance of `hidden` that a linear function of the images explains on ads it was not fitted to."""
    x = np.column_stack((images.astype(np.float64), np.ones(len(images))))
    half = len(x) // 2
    weights = np.linalg.lstsq(x[:half], hidden[:half], rcond=None)[0]
    left = ((x[half:] @ weights - hidden[half:]) ** 2).sum(0) / ((hidden[half:] - hidden[half:].mean(0)) ** 2).sum(0)
    return float(1 - left.max())


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 0.99, 1.0), (1.0, 0.2, 0.95), (30.0, -0.2, 0.1)])
def test_images_show_appeal_and_style_through_noise(noise: float, low: float, high: float) -> None:
    spec = SPEC.model_copy(update={"ads": 2_000, "image_noise": noise})
    appeal = build_world(spec).ads.appeal
    looks = build_looks(spec, appeal)
    assert looks.images.shape == (2_000, 16)
    assert looks.images.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(looks.style, axis=1), 1, atol=1e-5)
    assert low <= explained(looks.images, appeal[:, None] / SPEC.effects.appeal) <= high
    assert low <= explained(looks.images, looks.style) <= high


def test_behaviours_of_the_ads_style_add_their_mean_cosine() -> None:
    effects = PLAIN.model_copy(update={"style": 1.5, "half_life": 2.0})
    spec = SPEC.model_copy(update={"effects": effects, "history_length": 5})
    truth = Truth(build_world(spec))
    assert truth.world.looks is not None
    style = truth.world.looks.style
    history = np.array([[-1, -1, 8, 9, 10], [-1, -1, -1, -1, -1]])
    ads = np.array([[7, 8, 20], [7, 8, 20]])
    p = truth.true_ctr(np.array([0, 1]), ads, np.array([0, 0]), np.zeros_like(ads), history)
    weights = 2.0 ** (-np.array([2, 1, 0]) / 2)
    mean = (weights[:, None] * style[[8, 9, 10]]).sum(0) / weights.sum()
    np.testing.assert_allclose(np.log(p / (1 - p))[0], -1 + 1.5 * style[ads[0]] @ mean, atol=1e-5)
    np.testing.assert_allclose(np.log(p / (1 - p))[1], -1, atol=1e-5)


def test_an_ad_is_never_shown_nor_clicked_before_its_launch() -> None:
    world = build_world(SPEC)
    assert world.launch is not None
    assert (world.launch > 0).sum() == 200
    histories = world.first_histories()
    assert (world.launch[histories[histories >= 0]] == 0).all()
    later = 0
    rounds = list(simulate(Truth(world), histories))
    for i, each in enumerate(rounds):
        assert (world.launch[each.ads] <= i / len(rounds)).all()
        assert (np.diff(np.sort(each.ads, axis=1), axis=1) > 0).all()
        later += int((world.launch[each.ads] > 0).sum())
    assert later > 1_000


def test_images_change_nothing_else() -> None:
    plain = build_world(SPEC.model_copy(update={"images": 0, "launched": 0.0}))
    with_images = build_world(SPEC.model_copy(update={"launched": 0.0}))
    one, two = (list(simulate(Truth(world), world.first_histories())) for world in (plain, with_images))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.ads, b.ads)
        np.testing.assert_array_equal(a.clicks, b.clicks)


def test_what_is_prepared_has_the_vector_of_every_ad(tmp_path: Path) -> None:
    """Also of ads that training never showed, whose own ids are unknown."""
    raw = tmp_path / "raw"
    write_marketplace(SPEC, raw, lambda _: None)
    data = prepare(read_spec(raw / "dataset.yaml"), raw, tmp_path / "out", progress=False)
    world = build_world(SPEC)
    assert world.looks is not None
    assert data.prepared.without_vector == {"image": 0}
    column, own = (data.schema.ad.columns_of(name).start for name in ("image", "ad_id"))
    ids = ad_ids(np.arange(SPEC.ads))
    fields = data.ads.fields[data.ads.index.ids_of(ids)]
    np.testing.assert_array_equal(data.vectors["image"][fields[:, column]], world.looks.images)
    np.testing.assert_array_equal(data.vocabularies["image"].ids_of(image_ids(np.arange(SPEC.ads))), fields[:, column])
    assert (fields[:, own] == 1).sum() > 20
    assert data.schema.histories[0].fields == ("ad_id", "category", "brand", "image")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 0, "effects": Effects(style=1.0)}, "effects.style is 1.0, but there are no images"),
        ({"ads": 100, "brands": 20, "candidates": 13, "targeted": 0.0}, "at most an eighth of ads"),
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarketplaceSpec.model_validate(SPEC.model_dump() | change)
