"""Every way in which the desired state can be changed: what is asked for, and what becomes of the state."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from control.state import CONTROL, Arm, BundleId, Change, Desired, Experiment, Frozen, Name, Overrides, RampStep, Shadow


class ChangeError(ValueError):
    """The change is impossible as the state stands: names what is there."""


class Asked(Frozen):
    """What every change says beside what it is."""

    who: str = Field(min_length=1, max_length=128, description="For the audit log.")
    why: str = Field(min_length=1, max_length=1000, description="For the audit log.")
    expected: int | None = Field(
        default=None, ge=1, description="The version that is to be replaced; refused when there is another by now."
    )


class Serve(Asked):
    """Another control: what users outside of all experiments get."""

    action: Literal["serve"] = "serve"
    control: Overrides = Field(description="All of it; a bundle that is not named stays.")


class Start(Asked):
    """A new experiment; one of the same name must have been stopped."""

    action: Literal["start"] = "start"
    experiment: Experiment


class Ramp(Asked):
    """Who of an experiment's range takes part from when on."""

    action: Literal["ramp"] = "ramp"
    experiment: Name
    ramp: tuple[RampStep, ...] = Field(min_length=1, max_length=64)


class Stop(Asked):
    """An experiment, or one of its arms, is over: its users are served as the control is."""

    action: Literal["stop"] = "stop"
    experiment: Name
    arm: Name | None = None
    guardrail: bool = Field(default=False, description="A limit was crossed; the audit log says so.")


class Promote(Asked):
    """An arm becomes the control, and its experiment ends."""

    action: Literal["promote"] = "promote"
    experiment: Name
    arm: Name


class SetShadow(Asked):
    """Another shadow, or none."""

    action: Literal["shadow"] = "shadow"
    shadow: Shadow | None = None


class Rollback(Asked):
    """An earlier version anew."""

    action: Literal["rollback"] = "rollback"
    to: int | None = Field(
        default=None,
        ge=1,
        description="A version that is kept. Left out: the one that is served if a newer one waits, else the one "
        "before it.",
    )


class Replace(Asked):
    """The whole state, whatever it was."""

    action: Literal["replace"] = "replace"
    control: Overrides
    experiments: tuple[Experiment, ...] = Field(default=(), max_length=64)
    shadow: Shadow | None = None


AnyChange = Annotated[
    Serve | Start | Ramp | Stop | Promote | SetShadow | Rollback | Replace, Field(discriminator="action")
]
CHANGE: TypeAdapter[AnyChange] = TypeAdapter(AnyChange)


def changed(asked: AnyChange, state: Desired, earlier: Desired | None, now: float) -> Desired:
    """The state after the change. `earlier`: the version that a Rollback goes back to; `now`: Unix seconds.

    ChangeError for what the state does not have, or for two things that cannot be together.
    """
    try:
        return _changed(asked, state, earlier, now)
    except ValidationError as error:
        raise ChangeError("; ".join(each["msg"].removeprefix("Value error, ") for each in error.errors())) from error


def _changed(asked: AnyChange, state: Desired, earlier: Desired | None, now: float) -> Desired:
    control, experiments, shadow = state.control, state.experiments, state.shadow
    match asked:
        case Serve():
            control = asked.control
            if control.bundle is None:
                control = control.model_copy(update={"bundle": state.control.bundle})
        case Start():
            if (known := state.experiment(asked.experiment.name)) is not None and not known.stopped:
                raise ChangeError(f"the experiment {known.name!r} is running: stop it, or take another name")
            begun = asked.experiment.model_copy(update={"started_at": now})
            experiments = (*(each for each in experiments if each.name != begun.name), begun)
        case Ramp():
            _running(state, asked.experiment)
            experiments = _with(state, asked.experiment, {"ramp": asked.ramp})
        case Stop():
            experiments = _stopped(state, asked)
        case Promote():
            arm = _arm(_running(state, asked.experiment), asked.arm)
            control = control.model_copy(update=arm.overrides.given)
            experiments = _with(state, asked.experiment, {"stopped": True})
        case SetShadow():
            shadow = asked.shadow
        case Rollback():
            if earlier is None:
                raise ChangeError(f"version {asked.to or state.version - 1} is not kept any more, or never was")
            control, experiments, shadow = earlier.control, earlier.experiments, earlier.shadow
        case Replace():
            control, experiments, shadow = asked.control, asked.experiments, asked.shadow
    values = {"version": state.version + 1, "control": control, "experiments": experiments, "shadow": shadow}
    return Desired.model_validate(values)


def audited(asked: AnyChange, before: int, now: float) -> Change:
    """The line of the audit log."""
    action = "guardrail" if isinstance(asked, Stop) and asked.guardrail else asked.action
    what = asked.model_dump(exclude={"who", "why", "expected", "action"}, exclude_defaults=True, mode="json")
    return Change(at=now, who=asked.who, why=asked.why, action=action, what=what, before=before, after=before + 1)


def new_experiment(name: Name, arm: Name, bundle: BundleId, weight: float, salt: str) -> Experiment:
    """The usual one: another bundle for a share of all users."""
    arms = ({"name": arm, "weight": weight, "overrides": {"bundle": bundle}},)
    return Experiment.model_validate({"name": name, "salt": salt, "arms": arms})


def _stopped(state: Desired, asked: Stop) -> tuple[Experiment, ...]:
    experiment = _running(state, asked.experiment)
    if asked.arm is None:
        return _with(state, asked.experiment, {"stopped": True})
    over = _arm(experiment, asked.arm)
    arms = tuple(arm.model_copy(update={"stopped": True}) if arm is over else arm for arm in experiment.arms)
    return _with(state, asked.experiment, {"arms": arms})


def _running(state: Desired, name: str) -> Experiment:
    found = state.experiment(name)
    running = [each.name for each in state.experiments if not each.stopped]
    if found is None or found.stopped:
        what = "is stopped" if found is not None else "is not known"
        raise ChangeError(f"the experiment {name!r} {what}; running: {', '.join(running) or 'none'}")
    return found


def _arm(experiment: Experiment, name: str) -> Arm:
    running = [arm for arm in experiment.arms if not arm.stopped]
    if (found := next((arm for arm in running if arm.name == name), None)) is None:
        what = f"{CONTROL} and {', '.join(arm.name for arm in running)}" if running else f"{CONTROL} alone"
        raise ChangeError(f"{experiment.name!r} has no running arm {name!r}, it has {what}")
    return found


def _with(state: Desired, name: str, update: dict[str, object]) -> tuple[Experiment, ...]:
    return tuple(each.model_copy(update=update) if each.name == name else each for each in state.experiments)
