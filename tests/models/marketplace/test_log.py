import numpy as np
import pytest

from models.marketplace.log import Round, simulate
from models.marketplace.spec import MarketplaceSpec
from models.marketplace.truth import Truth
from models.marketplace.world import ad_ids, build_world, user_ids
from models.metrics import auc

SPEC = MarketplaceSpec(
    ads=1_000, users=1_500, impressions=150_000, categories=12, brands=80, candidates=10, history_length=20, seed=1
)


class Simulated:
    """A whole log with the histories that each request was drawn with."""

    def __init__(self, spec: MarketplaceSpec) -> None:
        self.truth = Truth(build_world(spec))
        self.first = self.truth.world.first_histories()
        histories = self.first.copy()
        self.rounds: list[Round] = []
        seen = []
        for each in simulate(self.truth, histories):
            self.rounds.append(each)
            seen.append(histories[each.users].copy())
        self.seen = np.concatenate(seen)
        self.users = np.concatenate([each.users for each in self.rounds])
        self.times = np.concatenate([each.time_ms for each in self.rounds])
        self.scenes = np.concatenate([each.scenes for each in self.rounds])
        self.ads = np.concatenate([each.ads for each in self.rounds])
        self.clicks = np.concatenate([each.clicks for each in self.rounds])
        self.ctr = np.concatenate([each.true_ctr for each in self.rounds])
        self.positions = np.broadcast_to(np.arange(spec.candidates), self.ads.shape)


@pytest.fixture(scope="module")
def log() -> Simulated:
    return Simulated(SPEC)


def test_sizes_and_order(log: Simulated) -> None:
    assert log.ads.shape == (15_000, 10)
    assert [each.first_request for each in log.rounds] == np.cumsum([0, *(len(r.users) for r in log.rounds)])[
        :-1
    ].tolist()
    assert (np.diff(log.times) >= 0).all()
    assert SPEC.start_ms <= log.times[0]
    assert log.times[-1] < SPEC.start_ms + SPEC.days * 86_400_000


def test_equal_seeds_give_equal_logs(log: Simulated) -> None:
    small = SPEC.model_copy(update={"impressions": 5_000})
    one, two, other = Simulated(small), Simulated(small), Simulated(small.model_copy(update={"seed": 2}))
    np.testing.assert_array_equal(one.clicks, two.clicks)
    np.testing.assert_array_equal(one.ads, two.ads)
    assert not np.array_equal(one.ads, other.ads)


def test_times_of_a_user_strictly_increase(log: Simulated) -> None:
    order = np.lexsort((log.times, log.users))
    same = log.users[order][1:] == log.users[order][:-1]
    assert same.sum() > 10_000
    assert (np.diff(log.times[order])[same] > 0).all()


def test_an_ad_is_shown_once_a_request(log: Simulated) -> None:
    assert (np.diff(np.sort(log.ads, axis=1), axis=1) > 0).all()


def test_the_history_is_what_was_clicked_strictly_before(log: Simulated) -> None:
    past = {user: [ad for ad in log.first[user].tolist() if ad >= 0] for user in range(SPEC.users)}
    for i, user in enumerate(log.users.tolist()):
        seen = [ad for ad in log.seen[i].tolist() if ad >= 0]
        assert seen == past[user][-SPEC.history_length :]
        past[user] += log.ads[i][log.clicks[i]].tolist()


def test_the_logged_probability_is_the_truth_of_that_impression(log: Simulated) -> None:
    few = slice(9_000, 9_500)
    again = log.truth.true_ctr(log.users[few], log.ads[few], log.scenes[few], log.positions[few], log.seen[few])
    np.testing.assert_allclose(again, log.ctr[few], rtol=1e-5)


def test_click_rate_and_its_calibration(log: Simulated) -> None:
    assert 0.05 < log.clicks.mean() < 0.2
    p = log.ctr.astype(np.float64)
    z = (log.clicks.sum() - p.sum()) / np.sqrt((p * (1 - p)).sum())
    assert abs(z) < 3.5


def test_the_best_auc_is_well_above_that_of_measured_rates(log: Simulated) -> None:
    train, test = slice(0, 12_000), slice(12_000, 15_000)
    best = auc(log.clicks[test].ravel(), log.ctr[test].ravel())
    shown = np.bincount(log.ads[train].ravel(), minlength=SPEC.ads)
    clicked = np.bincount(log.ads[train].ravel(), weights=log.clicks[train].ravel(), minlength=SPEC.ads)
    rate = (clicked + 1) / (shown + 10)
    assert 0.72 < best < 0.81
    assert auc(log.clicks[test].ravel(), rate[log.ads[test]].ravel()) < best - 0.08


def test_the_relation_of_history_and_ad_matters(log: Simulated) -> None:
    other = log.seen[np.random.default_rng(0).permutation(len(log.seen))]
    shuffled = log.truth.true_ctr(log.users, log.ads, log.scenes, log.positions, other)
    best = auc(log.clicks.ravel(), log.ctr.ravel())
    assert auc(log.clicks.ravel(), shuffled.ravel()) < best - 0.05


def test_upper_places_are_clicked_more(log: Simulated) -> None:
    rate = log.clicks.mean(axis=0)
    assert rate[:3].mean() > 1.1 * rate[-3:].mean()


def test_a_frame_carries_external_ids(log: Simulated) -> None:
    each = log.rounds[2]
    frame = each.frame(SPEC)
    assert frame.columns == ["user_id", "ad_id", "request_id", "time_ms", "scene", "position", "click", "true_ctr"]
    assert frame.height == each.ads.size
    np.testing.assert_array_equal(frame["ad_id"].to_numpy().reshape(each.ads.shape), ad_ids(each.ads))
    np.testing.assert_array_equal(frame["user_id"].to_numpy()[:: SPEC.candidates], user_ids(each.users))
    assert frame["scene"].to_list()[:: SPEC.candidates] == [SPEC.scenes[i] for i in each.scenes]
    assert frame["position"].to_list()[: SPEC.candidates] == list(range(SPEC.candidates))
    assert frame["request_id"][0] == each.first_request
