"""What a version of the desired state makes of the bundles: views that share all but what an arm does otherwise."""

from typing import Any

import pytest

from control.state import Auction, Platt
from service.errors import InvalidRequestError
from service.ladder import turn_of
from service.loaded import LoadedBundle, Sizes
from service.loading import load_bundle
from service.preparing import RefusedError
from tests.service.plans import desired, experiment, plan_of_one, planned
from tests.service.world import Recipe, make_world, settings_for


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[LoadedBundle]:
    """b1 with a ladder, b2 without."""
    root = tmp_path_factory.mktemp("plans")
    folders = [make_world(root, Recipe(bundle_id="b1", rungs=("light",))), make_world(root, Recipe(bundle_id="b2"))]
    return [load_bundle(folder, settings_for(folder)) for folder in folders]


def test_without_experiments_everybody_is_served_from_the_control(bundles: list[LoadedBundle]) -> None:
    plan = planned(bundles)
    served = plan.of("anna", 0.0)
    assert served.live is plan.control is bundles[0]
    assert (served.version, served.arms, served.dealt) == (7, {}, {})
    assert plan.of("bert", 1e9) is served
    assert [each.id for each in plan.catalogues] == ["b1"]
    assert plan_of_one(bundles[1]).of("anna", 0.0).live is bundles[1]


def test_an_arm_shares_graphs_arrays_and_measurements(bundles: list[LoadedBundle]) -> None:
    auction, platt = {"reserve_ecpm": 0.2}, {"slope": 0.5, "offset": 1.0}
    plan = planned(bundles, experiment("trial", overrides={"auction": auction, "calibration": platt}))
    view = plan.of("anna", 0.0).live
    assert (view.auction, view.platt) == (Auction(reserve_ecpm=0.2), Platt(slope=0.5, offset=1.0))
    assert view.sizes == bundles[0].sizes
    for name in ("bundle", "query", "ladder", "proof", "estimates"):
        assert getattr(view, name) is getattr(bundles[0], name)
    assert plan.of("bert", 0.0) is plan.of("anna", 0.0), "one object for all in the same arms"
    assert plan.control is bundles[0]


def test_an_arm_that_does_nothing_otherwise_is_the_bundle(bundles: list[LoadedBundle]) -> None:
    same = {"bundle": "b1", "prerank_keep": 30, "rung": "auto", "calibration": {}, "auction": {}}
    served = planned(bundles, experiment("trial", overrides=same)).of("anna", 0.0)
    assert served.live is bundles[0]
    assert served.arms == {"trial": "new"}


def test_another_bundle_is_served_as_the_control_is(bundles: list[LoadedBundle]) -> None:
    plan = planned(bundles, experiment("trial", overrides={"bundle": "b2"}), control={"prerank_keep": 20})
    view = plan.of("anna", 0.0).live
    assert view.bundle is bundles[1].bundle
    assert view.sizes == Sizes(100, 60, 20, 20)
    assert plan.control.sizes == Sizes(100, 60, 20, 20)
    assert [each.id for each in plan.catalogues] == ["b1", "b2"]
    assert (plan.users_of("b1"), plan.users_of("b2")) == (["control"], ["trial:new"])


def test_other_sizes_have_means_and_a_load_gate_of_their_own(bundles: list[LoadedBundle]) -> None:
    """A dear arm must neither drive the control down its ladder nor have its stages left out."""
    loaded = bundles[0]
    other = experiment("other", 0.5, layer="second", overrides={"auction": {"bid_exponent": 0.0}})
    plan = planned(bundles, experiment("trial", overrides={"prerank_keep": 60}), other)
    views = list({id(view): view for user in range(50) if (view := plan.of(str(user), 0.0).live)}.values())
    assert len(views) == 2
    for view in views:
        assert view.sizes == Sizes(100, 60, 60, 20)
        assert view.estimates is not loaded.estimates
        assert view.ladder.gate is not loaded.ladder.gate
        assert view.estimates.of(turn_of("full"), 1) == loaded.estimates.of(turn_of("full"), 1) > 0, "it begins so"
    one, two = views
    assert one.estimates is two.estimates, "of the same sizes"
    assert one.ladder.gate is two.ladder.gate
    known = loaded.estimates.of("retrieval", loaded.rows)
    one.estimates.observe("retrieval", loaded.rows, 1e6)
    assert loaded.estimates.of("retrieval", loaded.rows) == known


@pytest.mark.parametrize(("rung", "loads"), [("light", ["light"]), ("full", ["full"]), ("off", ["full"])])
def test_a_pinned_rung_is_the_only_one(bundles: list[LoadedBundle], rung: str, loads: list[str]) -> None:
    view = planned(bundles, experiment("trial", overrides={"rung": rung})).of("anna", 0.0).live
    assert [each.name for each in view.ladder.rungs] == loads
    assert view.ladder.gate is not bundles[0].ladder.gate
    assert view.ladder.judge(10_000, 1, 1, 1.0, view.estimates) == 0, "no load moves it"
    assert view.estimates is bundles[0].estimates


def test_a_control_that_is_pinned_and_an_arm_that_is_not(bundles: list[LoadedBundle]) -> None:
    plan = planned(bundles, experiment("trial", overrides={"rung": "auto"}), control={"rung": "light"})
    assert [each.name for each in plan.control.ladder.rungs] == ["light"]
    assert plan.of("anna", 0.0).live.ladder is bundles[0].ladder


@pytest.mark.parametrize(
    ("experiments", "more", "said"),
    [
        ([{"overrides": {"bundle": "b3"}}], {}, "arm e0:new: bundle 'b3' is not loaded; loaded: b1, b2"),
        ([{"overrides": {"rung": "tiny"}}], {}, "arm e0:new: rung is 'tiny', of bundle 'b1' .* auto, off, full, light"),
        ([{"overrides": {"rung": "light", "bundle": "b2"}}], {}, "arm e0:new: rung is 'light', of bundle 'b2'"),
        ([{"overrides": {"prerank_keep": 301}}], {}, "prerank_keep is 301, at most 300 is allowed: 10 times what 'b1'"),
        ([], {"control": {"bundle": "b9"}}, "the control: bundle 'b9' is not loaded"),
        ([], {"control": {"qscore_keep": 601}}, "the control: qscore_keep is 601, at most 600"),
        ([], {"shadow": {"bundle": "b9", "share": 0.1}}, "the shadow: bundle 'b9'"),
        ([], {"control": {"rung": "light"}, "shadow": {"bundle": "b2", "share": 0.1}}, "the shadow: rung is 'light'"),
        (
            [{"overrides": {"bundle": "b2"}}, {"overrides": {"rung": "light"}, "layer": "second"}],
            {},
            "arm e0:new together with arm e1:new: rung is 'light', of bundle 'b2'",
        ),
    ],
)
def test_a_version_that_cannot_be_served_is_refused_whole(
    bundles: list[LoadedBundle], experiments: list[dict[str, Any]], more: dict[str, Any], said: str
) -> None:
    named = [experiment(f"e{i}", **each) for i, each in enumerate(experiments)]
    with pytest.raises(RefusedError, match=said):
        planned(bundles, *named, **more)


def test_arms_that_nobody_can_be_in_together_need_not_fit(bundles: list[LoadedBundle]) -> None:
    """The same two of one layer; and a stopped arm may be whatever it was."""
    one = experiment("one", share=0.5, overrides={"bundle": "b2"})
    two = experiment("two", start=0.5, share=0.5, overrides={"rung": "light"})
    over = experiment("over", layer="second", overrides={"rung": "gone"}, stopped=True)
    assert planned(bundles, one, two, over)


def test_forced_arms(bundles: list[LoadedBundle]) -> None:
    plan = planned(bundles, experiment("trial", 0.0, overrides={"bundle": "b2"}))
    assert plan.of("anna", 0.0).arms == {"trial": "control"}
    served = plan.of("anna", 0.0, {"trial": "new"})
    assert (served.live.id, served.arms, served.dealt) == ("b2", {"trial": "new"}, {})
    assert plan.of("anna", 0.0, {"trial": "control"}).dealt == {}
    with pytest.raises(InvalidRequestError, match="trial has no running arm 'old'; running: control, new") as refused:
        plan.of("anna", 0.0, {"trial": "old"})
    assert refused.value.field == "X-Adrank-Arm"
    with pytest.raises(InvalidRequestError, match="'trial' does not run; running: none"):
        planned(bundles).of("anna", 0.0, {"trial": "new"})


def test_the_shadow_is_as_the_control_but_measures_for_itself(bundles: list[LoadedBundle]) -> None:
    shadow = {"shadow": {"bundle": "b2", "share": 0.25}}
    plan = planned(bundles, control={"prerank_keep": 20}, **shadow)
    assert plan.shadow is not None
    view = plan.shadow.view
    assert (plan.shadow.share, view.id, view.sizes.prerank) == (0.25, "b2", 20)
    assert view.estimates is not bundles[1].estimates
    assert plan.users_of("b2") == ["shadow"]
    assert planned(bundles, shadow={"bundle": "b2", "share": 0.0}).shadow is None


def test_a_state_says_which_bundles_it_needs() -> None:
    state = desired(experiment("trial", overrides={"bundle": "b2"}), shadow={"bundle": "b3", "share": 0.1})
    assert state.bundles == {"b1", "b2", "b3"}
