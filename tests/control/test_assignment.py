"""Who is in which arm: shares, independence, stickiness, lists and force."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from control.assignment import Assignment, Choice, Draw, UnknownArmError, merged
from control.state import CONTROL, Desired, Overrides, Platt

USERS = 1_000_000
WITHIN = 0.002
"""Two tenths of a point; the standard deviation of a share of 10^6 draws is at most 0.05 points."""
SOME = [str(i) for i in range(20_000)]
OUT = "out"


def experiment(name: str, *weights: float, **more: Any) -> dict[str, Any]:
    arms = [{"name": f"a{i}", "weight": weight} for i, weight in enumerate(weights)]
    return {"name": name, "salt": f"{name}-1", "arms": arms, **more}


def assignment(*experiments: dict[str, Any]) -> Assignment:
    return Assignment(
        Desired.model_validate({"version": 1, "control": {"bundle": "b1"}, "experiments": list(experiments)})
    )


def arm(found: tuple[Choice, ...], name: str) -> str:
    return next((each.arm for each in found if each.experiment == name), OUT)


def arms(one: Assignment, name: str = "trial", now: float = 0.0, users: list[str] = SOME) -> list[str]:
    return [arm(one.of(user, now), name) for user in users]


@pytest.fixture(scope="module")
def million() -> Counter[tuple[str, str]]:
    """Of 10^6 users, how many are in which arms of two experiments in layers of their own."""
    both = assignment(
        experiment("trial", 0.3, 0.1, 0.05, start=0.2, share=0.8), experiment("other", 0.5, layer="second")
    )
    found: Counter[tuple[str, str]] = Counter()
    for user in range(USERS):
        choices = both.of(str(user), 0.0)
        found[arm(choices, "trial"), arm(choices, "other")] += 1
    return found


def test_shares_are_the_weights(million: Counter[tuple[str, str]]) -> None:
    """Weights need not sum to 1, the rest is control; a fifth of the layer is outside of the experiment."""
    shares = {"a0": 0.24, "a1": 0.08, "a2": 0.04, CONTROL: 0.44, OUT: 0.2}
    for name, share in shares.items():
        found = sum(count for (mine, _), count in million.items() if mine == name) / USERS
        assert abs(found - share) < WITHIN, (name, found)
    assert abs(sum(count for (_, other), count in million.items() if other == "a0") / USERS - 0.5) < WITHIN


def test_two_layers_are_independent(million: Counter[tuple[str, str]]) -> None:
    table = [[million[mine, other] for other in ("a0", CONTROL)] for mine in ("a0", "a1", "a2", CONTROL, OUT)]
    assert np.sum(table) == USERS
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_places_are_uniform_and_those_of_other_salts_and_purposes_independent() -> None:
    """Chi-square over a grid of 20 by 20. Salts that differ in a bit, and one that a user's id could complete."""
    users = [user.encode() for user in SOME]
    draws = [Draw("layer", "main"), Draw("layer", "maim"), Draw("layer", "main1"), Draw("arm", "main")]
    places = [np.array([draw.place(user) for user in users]) for draw in draws]
    for place in places:
        assert stats.kstest(place, "uniform").pvalue > 0.001
    for i, one in enumerate(places):
        for other in places[:i]:
            table = np.histogram2d(one, other, bins=20, range=[[0, 1], [0, 1]])[0]
            assert stats.chi2_contingency(table).pvalue > 0.001
    same = np.histogram2d(places[0], places[0], bins=20)[0] + 1
    assert stats.chi2_contingency(same).pvalue < 1e-100, "the test sees two draws that are one"


def test_a_place_is_the_same_in_every_process_and_version() -> None:
    """Users would change arms in the middle of an experiment if these changed."""
    assert Draw("layer", "main").place(b"7") == 0.4004586826847426
    assert Draw("arm", "trial-1").place(b"7") == 0.13370629244312593


def test_places_are_below_one() -> None:
    """The largest that 53 bits give; 64 bits would be rounded to 1.0."""
    assert ((2**64 - 1) >> 11) * 2.0**-53 < 1.0 == float(2**64 - 1) * 2.0**-64
    assert all(0 <= Draw("layer", "main").place(user.encode()) < 1 for user in SOME)


def test_who_is_in_stays_in_the_same_arm_while_the_ramp_rises() -> None:
    steps = [{"at": i, "share": share} for i, share in enumerate((0.05, 0.2, 0.5, 1.0))]
    ramped = assignment(experiment("trial", 0.3, 0.3, ramp=steps))
    before = arms(ramped, now=-1.0)
    assert set(before) == {OUT}, "before the first step nobody is in"
    for now, step in enumerate(steps):
        after = arms(ramped, now=float(now))
        assert [b for b, a in zip(before, after, strict=True) if b not in {OUT, a}] == []
        taking = sum(each != OUT for each in after) / len(after)
        assert abs(taking - step["share"]) < 0.02
        counts = Counter(after)
        assert abs(counts["a0"] / (len(after) * taking) - 0.3) < 0.03, "each step takes fair shares of all arms"
        before = after
    assert OUT not in before


def test_another_salt_is_another_draw_of_the_same_users() -> None:
    first = arms(assignment(experiment("trial", 0.5, share=0.5)))
    again = arms(assignment(experiment("trial", 0.5, share=0.5, salt="trial-2")))
    assert [each == OUT for each in first] == [each == OUT for each in again]
    table = Counter(pair for pair in zip(first, again, strict=True) if OUT not in pair)
    assert min(table.values()) > 0.2 * sum(table.values()), "all four combinations come up"


def test_ranges_of_one_layer_exclude_each_other_and_leave_nobody_out() -> None:
    """0.1 + 0.2 is one ulp above 0.3, 0.3 + 0.7 is 1."""
    both = assignment(experiment("one", 0.5, start=0.1, share=0.2), experiment("two", 0.5, start=0.3, share=0.7))
    found = [both.of(user, 0.0) for user in SOME]
    assert {len(each) for each in found} == {0, 1}
    counts = Counter(each[0].experiment if each else OUT for each in found)
    for name, share in ((OUT, 0.1), ("one", 0.2), ("two", 0.7)):
        assert abs(counts[name] / len(SOME) - share) < 0.015


def test_weights_that_sum_to_one_leave_no_control() -> None:
    assert set(arms(assignment(experiment("trial", *[0.1] * 10)))) == {f"a{i}" for i in range(10)}
    bounds = assignment(experiment("trial", *[0.1] * 10))._layers[0].running[0].bounds
    assert bounds[-1] == 1.0, "ten tenths are a little less"


def test_who_is_denied_never_takes_part_and_who_is_allowed_always() -> None:
    listed = assignment(
        experiment(
            "trial",
            0.5,
            start=0.9,
            share=0.1,
            ramp=[{"at": 100, "share": 1}],
            allow={"anna": "a0", "bert": CONTROL, "carl": "a0"},
            deny=["carl", *SOME[:100]],
        )
    )
    for now in (0.0, 200.0):
        assert [arm(listed.of(user, now), "trial") for user in ("anna", "bert", "carl")] == ["a0", CONTROL, OUT]
        assert not listed.of("anna", now)[0].dealt, "nobody dealt that"
    assert set(arms(listed, now=200.0, users=SOME[:100])) == {OUT}
    assert all(each.dealt for user in SOME[100:2000] for each in listed.of(user, 200.0))


def test_two_experiments_of_a_layer_never_share_a_user_that_both_allow() -> None:
    both = assignment(
        experiment("one", 0.5, share=0.5, allow={"anna": "a0"}),
        experiment("two", 0.5, start=0.5, share=0.5, allow={"anna": "a0", "bert": "a0"}),
    )
    assert [(each.experiment, each.arm) for each in both.of("anna", 0.0)] == [("one", "a0")]
    assert [(each.experiment, each.arm) for each in both.of("bert", 0.0)] == [("two", "a0")]


def test_users_of_a_stopped_arm_are_in_no_arm_and_all_others_stay() -> None:
    before = arms(assignment(experiment("trial", 0.3, 0.3)))
    stopped = experiment("trial", 0.3, 0.3, allow={"anna": "a0"})
    stopped["arms"][0]["stopped"] = True
    one = assignment(stopped)
    assert arms(one) == [OUT if each == "a0" else each for each in before]
    assert one.of("anna", 0.0) == ()
    assert not assignment(experiment("trial", 0.3, stopped=True))


def test_forced_arms_go_before_everything() -> None:
    both = assignment(
        experiment("trial", 0.5, share=0.1, ramp=[{"at": 100, "share": 1}], deny=["anna"]),
        experiment("other", 1.0, layer="second"),
    )
    found = both.forced("anna", 0.0, {"trial": "a0"})
    assert {each.experiment: (each.arm, each.dealt) for each in found} == {
        "trial": ("a0", False),
        "other": ("a0", True),
    }
    assert arm(both.forced("anna", 0.0, {"other": CONTROL}), "other") == CONTROL


@pytest.mark.parametrize(
    ("forced", "said"),
    [
        ({"tiral": "a0"}, "'tiral' does not run; running: one, trial, two"),
        ({"over": "a0"}, "'over' does not run"),
        ({"trial": "a9"}, "trial has no running arm 'a9'; running: control, a1"),
        ({"trial": "a0"}, "no running arm 'a0'"),
        ({"one": "a0", "two": "a0"}, "one and two are both of the layer second: nobody is in both"),
    ],
)
def test_forced_arms_that_are_not_there(forced: dict[str, str], said: str) -> None:
    trial = experiment("trial", 0.5, 0.5)
    trial["arms"][0]["stopped"] = True
    running = assignment(
        trial,
        experiment("over", 1.0, stopped=True),
        experiment("one", 1.0, layer="second", share=0.5),
        experiment("two", 1.0, layer="second", start=0.5, share=0.5),
    )
    with pytest.raises(UnknownArmError, match=said):
        running.forced("anna", 0.0, forced)


def test_overrides_are_the_controls_with_what_arms_do_otherwise() -> None:
    control = Overrides(bundle="b1", prerank_keep=100, calibration=Platt(slope=0.9))
    found = merged(control, [Overrides(bundle="b2"), Overrides(calibration=Platt())])
    assert found == Overrides(bundle="b2", prerank_keep=100, calibration=Platt())
    assert merged(control, []) == control
