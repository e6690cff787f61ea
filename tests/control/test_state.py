"""The desired state: what it refuses, and what it says of itself."""

from typing import Any

import pytest
from pydantic import ValidationError

from control.state import CONTROL, Change, Desired, Experiment, Overrides, Platt, RampStep


def experiment(name: str = "trial", **more: Any) -> dict[str, Any]:
    return {"name": name, "salt": f"{name}-1", "arms": [{"name": "new", "weight": 0.5}], **more}


def desired(*experiments: dict[str, Any], **more: Any) -> Desired:
    return Desired.model_validate({"version": 1, "control": {"bundle": "b1"}, "experiments": experiments, **more})


def sets(**overrides: Any) -> list[dict[str, Any]]:
    return [{"name": "new", "weight": 0.5, "overrides": overrides}]


def test_it_reads_what_it_writes() -> None:
    state = desired(
        experiment(
            arms=sets(bundle="b2", calibration={"slope": 0.9}, auction={"reserve_ecpm": 0.1}),
            ramp=[{"at": 10, "share": 0.1}, {"at": 20, "share": 1}],
            allow={"anna": "new"},
            deny=["bert"],
            guardrails={"p99_ms": 30},
        ),
        shadow={"bundle": "b3", "share": 0.1},
    )
    assert Desired.model_validate_json(state.model_dump_json()) == state
    assert state.bundles == {"b1", "b2", "b3"}
    assert state.experiment("trial") == state.experiments[0]
    assert state.experiment("other") is None


def test_what_is_stopped_needs_no_bundle() -> None:
    arm = sets(bundle="b2")[0]
    assert desired(experiment(arms=[arm], stopped=True)).bundles == {"b1"}
    assert desired(experiment(arms=[arm | {"stopped": True}])).bundles == {"b1"}


def test_given_is_what_is_not_as_the_control() -> None:
    overrides = Overrides(rung="light", calibration=Platt(offset=0.0))
    assert overrides.given == {"rung": "light", "calibration": Platt()}
    assert Overrides().given == {}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"arms": []}, "at least 1"),
        ({"arms": [{"name": CONTROL, "weight": 0.1}]}, "'control' is the rest"),
        ({"arms": [{"name": "a", "weight": 0.1}] * 2}, "names must differ"),
        ({"arms": [{"name": "a", "weight": 0.6}, {"name": "b", "weight": 0.5}]}, "sum to 1.1, at most 1"),
        ({"arms": [{"name": "a", "weight": 1.5}]}, "less than or equal to 1"),
        ({"arms": [{"name": "a", "weight": float("nan")}]}, "finite number"),
        ({"arms": sets(prerank_keep=0)}, "greater than or equal to 1"),
        ({"arms": sets(calibration={"slope": 0})}, "greater than 0"),
        ({"arms": sets(auction={"bid_exponent": 3})}, "less than or equal to 2"),
        ({"arms": sets(bundel="b2")}, "Extra inputs"),
        ({"arms": sets(bundle="../b2")}, "match pattern"),
        ({"name": "A b"}, "match pattern"),
        ({"start": 0.6, "share": 0.5}, r"holds \[0.6, 1.1\) of its layer, 1 is all"),
        ({"ramp": [{"at": 2, "share": 0.1}, {"at": 1, "share": 1}]}, "must rise in time"),
        ({"ramp": [{"at": 2, "share": 0.1}, {"at": 2, "share": 1}]}, "must rise in time"),
        ({"allow": {"anna": "old"}}, r"allows users into \['old'\], its arms are \['control', 'new'\]"),
        ({"guardrails": {"calibration": 1}}, "greater than 1"),
        ({"salt": ""}, "at least 1 character"),
    ],
)
def test_what_an_experiment_refuses(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        desired(experiment(**wrong))


def test_decimals_that_add_up_to_one_are_taken() -> None:
    """0.1 ten times is 0.9999999999999999, 0.7 + 0.2 + 0.1 another; 0.1 + 0.2 ends after 0.3 begins."""
    tenths = [{"name": f"a{i}", "weight": 0.1} for i in range(10)]
    assert len(desired(experiment(arms=tenths)).experiments[0].arms) == 10
    both = desired(experiment("one", start=0.1, share=0.2), experiment("two", start=0.3, share=0.7))
    assert [each.start for each in both.experiments] == [0.1, 0.3]


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ({"name": "trial"}, {"name": "trial", "layer": "b"}, "names must differ"),
        ({}, {"name": "other"}, r"'other' and 'trial' both hold \[0, 1\) of the layer 'main'"),
        ({"share": 0.5}, {"name": "other", "start": 0.4, "share": 0.2}, r"both hold \[0.4, 0.5\)"),
        (
            {"arms": sets(rung="light", bundle="b2")},
            {"name": "other", "layer": "b", "arms": sets(rung="full")},
            "both set rung in layers that share users",
        ),
        (
            {"salt": "s"},
            {"name": "other", "layer": "b", "salt": "s"},
            "salt 's', so both would deal them out alike",
        ),
    ],
)
def test_experiments_that_would_be_in_each_others_way(one: dict[str, Any], two: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        desired(experiment(**one), experiment(**two))


def test_experiments_that_are_not() -> None:
    for one, two in (
        (experiment("one", share=0.5), experiment("two", start=0.5, share=0.5)),
        (experiment("one", arms=sets(bundle="b2")), experiment("two", layer="b", arms=sets(rung="light"))),
        (experiment("one", stopped=True), experiment("two")),
    ):
        assert [each.name for each in desired(one, two).experiments] == ["one", "two"]


def test_the_control_needs_a_bundle() -> None:
    with pytest.raises(ValidationError, match=r"control\.bundle is not given"):
        Desired.model_validate({"version": 1, "control": {"rung": "light"}})


def test_a_ramp_is_as_of_its_last_step() -> None:
    steps = (RampStep(at=10, share=0.1), RampStep(at=20, share=0.5), RampStep(at=30, share=1))
    ramped = Experiment.model_validate(experiment()).model_copy(update={"ramp": steps})
    assert [ramped.share_at(now) for now in (0, 9.99, 10, 19, 20, 30, 1e9)] == [0, 0, 0.1, 0.1, 0.5, 1, 1]
    assert Experiment.model_validate(experiment()).share_at(0) == 1


def test_a_line_of_the_audit_log_needs_who_and_why() -> None:
    line = {"at": 1.0, "who": "anna", "why": "to see", "action": "stop", "before": 3, "after": 4}
    assert Change.model_validate(line).after == 4
    for missing in ("who", "why"):
        with pytest.raises(ValidationError, match="at least 1 character"):
            Change.model_validate(line | {missing: ""})
