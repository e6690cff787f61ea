"""Users after the log's end: who comes, what they ask, and what they click."""

import numpy as np
import pytest

from models.marketplace.log import simulate
from models.marketplace.spec import MarketplaceSpec
from models.marketplace.truth import Truth
from models.marketplace.visitors import Visitors
from models.marketplace.world import ad_ids, build_world, user_ids

SPEC = MarketplaceSpec(seed=3, ads=200, users=60, impressions=2000, categories=4, brands=12, targeted=0.3)


def test_histories_go_on_from_where_the_log_ended() -> None:
    world = build_world(SPEC)
    wanted = world.first_histories()
    for _ in simulate(Truth(world), wanted):
        pass
    assert (Visitors(SPEC, 0).histories == wanted).all()


def test_visitors_differ_and_ask_with_their_scene_and_region() -> None:
    visitors = Visitors(SPEC, 0)
    visits = visitors.come(20)
    assert len(set(visits.users.tolist())) == 20
    bodies = visitors.ask(visits, 5)
    assert [body["user_id"] for body in bodies] == user_ids(visits.users).tolist()
    context = {"scene": SPEC.scenes[visits.scenes[0]], "region": SPEC.regions[visits.regions[0]]}
    assert bodies[0] == {"user_id": bodies[0]["user_id"], "context": context, "k": 5}
    with pytest.raises(ValueError, match="61 different users were asked for, there are 60"):
        visitors.come(61)


def test_clicks_are_drawn_from_the_truth_and_enter_the_histories() -> None:
    visitors = Visitors(SPEC, 0)
    visits = visitors.come(50)
    before = visitors.histories[visits.users].copy()
    rows = np.arange(50 * 4).reshape(50, 4) % 200
    shown = [ad_ids(each).tolist() for each in rows]
    shown[0] = []
    seen = visitors.see(visits, shown)
    places = np.broadcast_to(np.arange(4), rows.shape)
    wanted = visitors.truth.true_ctr(visits.users, rows, visits.scenes, places, before)
    assert (seen.true_ctr[1:] == wanted[1:]).all()
    assert not seen.true_ctr[0].any()
    assert not seen.clicks[0].any()
    assert seen.clicks.any()
    for i, user in enumerate(visits.users):
        clicked = rows[i][seen.clicks[i]]
        after = visitors.histories[user]
        assert (after[len(after) - len(clicked) :] == clicked).all()
        assert (after[: len(after) - len(clicked)] == before[i][len(clicked) :]).all()


def test_an_ad_of_another_marketplace_is_named() -> None:
    visitors = Visitors(SPEC, 0)
    with pytest.raises(ValueError, match="5 was shown, which is no ad of this marketplace"):
        visitors.see(visitors.come(1), [[5]])


def test_as_many_clicks_as_the_truth_says() -> None:
    visitors = Visitors(SPEC, 1)
    clicks, expected, variance = 0, 0.0, 0.0
    for _ in range(40):
        visits = visitors.come(50)
        seen = visitors.see(visits, [ad_ids(np.arange(10)).tolist()] * 50)
        clicks += int(seen.clicks.sum())
        expected += float(seen.true_ctr.sum())
        variance += float((seen.true_ctr * (1 - seen.true_ctr)).sum())
    assert abs(clicks - expected) < 4 * variance**0.5


def test_tastes_may_have_turned_since_the_log() -> None:
    before, after = Visitors(SPEC, 0), Visitors(SPEC, 0, drift=0.5)
    assert (before.histories == after.histories).all(), "the log is that of the marketplace"
    visits = before.come(30)
    assert (after.come(30).users == visits.users).all()
    shown = [ad_ids(np.arange(10)).tolist()] * 30
    assert (before.true_ctr(visits, shown) != after.true_ctr(visits, shown)).mean() > 0.9


def test_the_truth_can_be_asked_for_without_anybody_seeing_anything() -> None:
    visitors, other = Visitors(SPEC, 0), Visitors(SPEC, 0)
    visits = visitors.come(30)
    other.come(30)
    shown = [ad_ids(np.arange(row, row + 3)).tolist() for row in range(30)]
    asked = visitors.true_ctr(visits, shown)
    assert (visitors.histories == other.histories).all()
    seen, wanted = visitors.see(visits, shown), other.see(visits, shown)
    assert (asked == seen.true_ctr).all()
    assert (seen.clicks == wanted.clicks).all(), "nothing was drawn"
