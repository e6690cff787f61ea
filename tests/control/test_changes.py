"""Every change of the desired state: what becomes of it, and what is refused."""

import pytest

from control.changes import (
    CHANGE,
    ChangeError,
    Promote,
    Ramp,
    Replace,
    Rollback,
    Serve,
    SetShadow,
    Start,
    Stop,
    audited,
    changed,
    new_experiment,
)
from control.state import Auction, Desired, Experiment, Overrides, RampStep, Shadow

SAID = {"who": "anna", "why": "to see"}
FIRST = Desired(version=3, control=Overrides(bundle="old", prerank_keep=100))
TRIAL = new_experiment("trial", "new", "next", 0.5, "salt")


def running() -> Desired:
    return changed(Start(experiment=TRIAL, **SAID), FIRST, None, 50.0)


def test_another_control_keeps_the_bundle_that_is_not_named() -> None:
    found = changed(Serve(control=Overrides(qscore_keep=10), **SAID), FIRST, None, 0.0)
    assert found == Desired(version=4, control=Overrides(bundle="old", qscore_keep=10))


def test_an_experiment_starts_now() -> None:
    found = running()
    assert found.version == 4
    (experiment,) = found.experiments
    assert experiment.started_at == 50.0
    assert experiment.arms[0].overrides.bundle == "next"
    assert found.bundles == {"old", "next"}


def test_a_running_experiment_is_not_started_twice_a_stopped_one_anew() -> None:
    with pytest.raises(ChangeError, match="'trial' is running"):
        changed(Start(experiment=TRIAL, **SAID), running(), None, 60.0)
    stopped = changed(Stop(experiment="trial", **SAID), running(), None, 60.0)
    anew = changed(Start(experiment=TRIAL, **SAID), stopped, None, 70.0)
    assert [each.started_at for each in anew.experiments] == [70.0]


def test_two_experiments_that_would_decide_the_same_are_refused() -> None:
    other = new_experiment("other", "b", "third", 0.5, "pepper").model_copy(update={"layer": "second"})
    with pytest.raises(ChangeError, match="'other' and 'trial' both set bundle"):
        changed(Start(experiment=other, **SAID), running(), None, 0.0)
    overlapping = other.model_copy(update={"layer": "main", "start": 0.5, "share": 0.5})
    with pytest.raises(ChangeError, match=r"both hold \[0.5, 1\)"):
        changed(Start(experiment=overlapping, **SAID), running(), None, 0.0)


def test_a_ramp_must_rise_in_time() -> None:
    steps = (RampStep(at=10, share=0.1), RampStep(at=20, share=0.5))
    found = changed(Ramp(experiment="trial", ramp=steps, **SAID), running(), None, 0.0)
    assert [found.experiments[0].share_at(t) for t in (9.0, 10.0, 19.9, 20.0)] == [0.0, 0.1, 0.1, 0.5]
    with pytest.raises(ChangeError, match="must rise in time"):
        changed(Ramp(experiment="trial", ramp=steps[::-1], **SAID), running(), None, 0.0)


def test_one_arm_stops_the_other_goes_on() -> None:
    both = Experiment.model_validate(
        TRIAL.model_dump() | {"arms": [*TRIAL.model_dump()["arms"], {"name": "b", "weight": 0.1}]}
    )
    state = changed(Start(experiment=both, **SAID), FIRST, None, 0.0)
    found = changed(Stop(experiment="trial", arm="new", **SAID), state, None, 0.0)
    assert [(arm.name, arm.stopped) for arm in found.experiments[0].arms] == [("new", True), ("b", False)]
    assert found.bundles == {"old"}
    with pytest.raises(ChangeError, match="no running arm 'new', it has control and b"):
        changed(Stop(experiment="trial", arm="new", **SAID), found, None, 0.0)


def test_a_promoted_arm_is_the_control_with_all_it_did() -> None:
    arm = {"name": "b", "weight": 0.5, "overrides": {"bundle": "next", "auction": {"bid_exponent": 0.5}}}
    experiment = Experiment.model_validate(TRIAL.model_dump() | {"arms": [arm]})
    state = changed(Start(experiment=experiment, **SAID), FIRST, None, 0.0)
    found = changed(Promote(experiment="trial", arm="b", **SAID), state, None, 0.0)
    assert found.control == Overrides(bundle="next", prerank_keep=100, auction=Auction(bid_exponent=0.5))
    assert found.experiments[0].stopped
    with pytest.raises(ChangeError, match="'trial' is stopped; running: none"):
        changed(Promote(experiment="trial", arm="b", **SAID), found, None, 0.0)


def test_a_shadow_comes_and_goes() -> None:
    found = changed(SetShadow(shadow=Shadow(bundle="next", share=0.1), **SAID), FIRST, None, 0.0)
    assert found.bundles == {"old", "next"}
    assert changed(SetShadow(**SAID), found, None, 0.0).shadow is None


def test_going_back_is_a_new_version_of_the_earlier_state() -> None:
    state = running()
    found = changed(Rollback(**SAID), state, FIRST, 0.0)
    assert found == FIRST.model_copy(update={"version": state.version + 1})
    with pytest.raises(ChangeError, match="version 1 is not kept"):
        changed(Rollback(to=1, **SAID), state, None, 0.0)


def test_the_whole_state_is_replaced() -> None:
    found = changed(Replace(control=Overrides(bundle="x"), **SAID), running(), None, 0.0)
    assert found == Desired(version=5, control=Overrides(bundle="x"))
    with pytest.raises(ChangeError, match=r"control\.bundle is not given"):
        changed(Replace(control=Overrides(), **SAID), running(), None, 0.0)


def test_the_audit_log_tells_who_why_and_what() -> None:
    line = audited(Stop(experiment="trial", arm="new", guardrail=True, **SAID), 7, 99.0)
    assert line.model_dump() == {
        "at": 99.0,
        "who": "anna",
        "why": "to see",
        "action": "guardrail",
        "what": {"experiment": "trial", "arm": "new", "guardrail": True},
        "before": 7,
        "after": 8,
    }


def test_a_change_is_read_by_its_action() -> None:
    found = CHANGE.validate_python({"action": "ramp", "experiment": "trial", "ramp": [{"at": 1, "share": 0.5}], **SAID})
    assert isinstance(found, Ramp)
