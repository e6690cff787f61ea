"""The desired state: which bundle serves whom. One frozen value, written as a whole, with a version.

    desired = control bundle + experiments + shadow
    experiment = a range of a layer's users, dealt out to arms; an arm is what it does otherwise than the control

A user has one place in [0, 1) in each layer, by a salted hash (`control/assignment.py`). Experiments of one layer hold
ranges that do not overlap, so that nobody is in two of them; layers are independent of each other, so an experiment in
another layer changes nothing but the noise. What two layers set must not be the same thing.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

CONTROL = "control"
"""The arm of those users of an experiment to whom no other arm was dealt."""
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
BundleId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Salt = Annotated[str, StringConstraints(min_length=1, max_length=64)]
UserId = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Share = Annotated[float, Field(ge=0, le=1)]
Keep = Annotated[int, Field(ge=1, le=1_000_000)]
EPSILON = 1e-9
"""Shares are written in decimals: 0.1 + 0.2 may be 1 ulp above 0.3."""


class Frozen(BaseModel):
    """Frozen; unknown keys, NaN and infinity are refused. What is put together from parts is checked anew."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, revalidate_instances="always")


class Auction(Frozen):
    """How ads are ordered and which may win: by pCTR × bid^exponent, those of at least `reserve_ecpm`."""

    bid_exponent: float = Field(default=1.0, ge=0, le=2)
    """1: expected revenue; 0: by pCTR alone."""
    reserve_ecpm: float = Field(default=0.0, ge=0)
    """In the unit of pCTR × bid, whatever the exponent."""


class Platt(Frozen):
    """Corrects the fine-ranker's calibrated logits once more: slope × logit + offset."""

    slope: float = Field(default=1.0, gt=0, le=10)
    offset: float = Field(default=0.0, ge=-10, le=10)


class Overrides(Frozen):
    """What is done otherwise than the control does; None: as the control."""

    bundle: BundleId | None = None
    retrieval_keep: Keep | None = None
    qscore_keep: Keep | None = None
    prerank_keep: Keep | None = None
    rung: Name | None = None
    """The one fine-ranker of the bundle's ladder that scores, as the setting `ladder` says it."""
    calibration: Platt | None = None
    auction: Auction | None = None

    @property
    def given(self) -> dict[str, object]:
        """What is not None, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class Arm(Frozen):
    """Some of an experiment's users, and what is done otherwise for them."""

    name: Name
    weight: Share
    """Of the experiment's users. Weights need not sum to 1: the rest is the control."""
    overrides: Overrides = Overrides()
    stopped: bool = False
    """Its users are served as the control is, and are not counted for it any more."""


class RampStep(Frozen):
    """From this time on, this share of the experiment's range takes part."""

    at: float = Field(ge=0)
    """Unix seconds."""
    share: Share


class Guardrails(Frozen):
    """Limits of every arm; one that crosses a limit is stopped. None: not looked at."""

    p99_ms: float | None = Field(default=None, gt=0)
    error_rate: Share | None = None
    """Of requests that failed."""
    calibration: float | None = Field(default=None, gt=1)
    """Clicks ÷ sum of pCTR, over that of the control, must stay within [1 / this, this]: where users change, or the
    best ads of many are shown, the control's own is not 1."""
    ctr_drop: float | None = Field(default=None, gt=0, lt=1)
    """Relative to the control: 0.05 is 5 % fewer clicks an impression."""
    min_impressions: int = Field(default=1000, ge=1)
    """Nothing is judged before."""


class Experiment(Frozen):
    """Arms that are compared on a range of a layer's users."""

    name: Name
    layer: Name = "main"
    salt: Salt
    """Deals the users out to arms. Another salt is another draw."""
    start: Share = 0.0
    """Where its range of the layer begins."""
    share: Share = 1.0
    """How long its range is. `ramp` lets in a part of it."""
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=16)
    ramp: tuple[RampStep, ...] = Field(default=(), max_length=64)
    """Rising in time. Without it the whole range takes part. Before the first step nobody does."""
    allow: dict[UserId, Name] = Field(default={}, max_length=10_000)
    """User -> arm, whatever the hash says."""
    deny: tuple[UserId, ...] = Field(default=(), max_length=10_000)
    """Users that never take part."""
    guardrails: Guardrails = Guardrails()
    stopped: bool = False
    """Nobody takes part any more; kept for its record."""
    started_at: float = Field(default=0.0, ge=0)
    """Unix seconds; outcomes before do not count."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        names = [arm.name for arm in self.arms]
        if CONTROL in names or len(set(names)) < len(names):
            raise ValueError(f"arms of {self.name!r} are {names}: names must differ, and {CONTROL!r} is the rest")
        if (total := sum(arm.weight for arm in self.arms)) > 1 + EPSILON:
            raise ValueError(f"weights of {self.name!r} sum to {total:g}, at most 1")
        if self.start + self.share > 1 + EPSILON:
            raise ValueError(
                f"{self.name!r} holds [{self.start:g}, {self.start + self.share:g}) of its layer, 1 is all"
            )
        times = [step.at for step in self.ramp]
        if sorted(set(times)) != times:
            raise ValueError(f"the ramp of {self.name!r} must rise in time: {times}")
        if strange := sorted(set(self.allow.values()) - {CONTROL, *names}):
            raise ValueError(f"{self.name!r} allows users into {strange}, its arms are {[CONTROL, *names]}")
        return self

    def share_at(self, now: float) -> float:
        """The share of the range that takes part at `now`, Unix seconds."""
        if not self.ramp:
            return 1.0
        begun = [step.share for step in self.ramp if step.at <= now]
        return begun[-1] if begun else 0.0


class Shadow(Frozen):
    """A bundle that ranks some requests once more, after their answer was sent."""

    bundle: BundleId
    share: Share
    """Of all requests."""


class Desired(Frozen):
    """What all processes are to serve."""

    version: int = Field(ge=0)
    """From 1. 0: agreed on with nobody, what a process serves that cannot read the state when it starts."""
    control: Overrides
    """With a bundle. What users outside of all experiments get."""
    experiments: tuple[Experiment, ...] = Field(default=(), max_length=64)
    shadow: Shadow | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.control.bundle is None:
            raise ValueError("control.bundle is not given: it is what everybody else is served from")
        names = [each.name for each in self.experiments]
        if len(set(names)) < len(names):
            raise ValueError(f"experiments are {names}: names must differ")
        running = [each for each in self.experiments if not each.stopped]
        for i, one in enumerate(running):
            for other in running[:i]:
                _apart(one, other)
        return self

    @property
    def bundles(self) -> frozenset[str]:
        """Ids of all bundles that are needed to serve it, the shadow's included."""
        return frozenset(self._bundles())

    def _bundles(self) -> Iterator[str]:
        assert self.control.bundle is not None
        yield self.control.bundle
        for experiment in self.experiments:
            if not experiment.stopped:
                yield from (arm.overrides.bundle for arm in experiment.arms if arm.overrides.bundle and not arm.stopped)
        if self.shadow is not None:
            yield self.shadow.bundle

    def experiment(self, name: str) -> Experiment | None:
        """The experiment of this name."""
        return next((each for each in self.experiments if each.name == name), None)


class Change(Frozen):
    """One line of the audit log."""

    at: float
    """Unix seconds."""
    who: str = Field(min_length=1, max_length=128)
    why: str = Field(min_length=1, max_length=1000)
    action: Literal["first", "serve", "start", "ramp", "stop", "promote", "shadow", "rollback", "replace", "guardrail"]
    """first: a service without a state began with its setting `bundle`."""
    what: dict[str, JsonValue] = {}
    """The change as it was asked for."""
    before: int = Field(ge=0)
    """The version that was replaced; 0 for the first."""
    after: int


def _apart(one: Experiment, other: Experiment) -> None:
    """ValueError when two running experiments could both decide the same thing for one user."""
    if one.layer == other.layer:
        low, high = max(one.start, other.start), min(one.start + one.share, other.start + other.share)
        if low + EPSILON < high:
            raise ValueError(
                f"{one.name!r} and {other.name!r} both hold [{low:g}, {high:g}) of the layer {one.layer!r}: "
                "move one, or put it into a layer of its own"
            )
        return
    if one.salt == other.salt:
        raise ValueError(
            f"{one.name!r} and {other.name!r} share users and salt {one.salt!r}, so both would deal them out alike: "
            "give one of them another"
        )
    both = {name for arm in one.arms for name in arm.overrides.given}
    if both := both & {name for arm in other.arms for name in arm.overrides.given}:
        raise ValueError(
            f"{one.name!r} and {other.name!r} both set {', '.join(sorted(both))} in layers that share users: put them "
            "into one layer"
        )
