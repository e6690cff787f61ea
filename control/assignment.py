"""Which arms a user is in: by salted hashes of the id alone, so that every process says the same and asks nobody.

    place in a layer     draw("layer", name of the layer)     an experiment holds the range [start, start + share)
    place among arms     draw("arm", salt of the experiment)  arms hold [0, w1), [w1, w1 + w2), ...; the rest is control

Both places are numbers in [0, 1) and independent of each other. A ramp lets in the users at the beginning of the range:
who is in stays in while the ramp rises, and stays in the same arm, which the ramp has nothing to do with.

The hash is BLAKE2b (RFC 7693): it takes a salt and a purpose by itself, every bit of it can be used, and it costs
0.8 us in the standard library. Python's own `hash` differs from process to process.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import accumulate
from typing import Literal

from control.state import CONTROL, EPSILON, Arm, Desired, Experiment, Overrides


class UnknownArmError(ValueError):
    """A forced arm that is not there, or two that nobody can be in at once: names those there are."""


class Draw:
    """A place in [0, 1) for every user: uniform, and independent of that of any other purpose or salt."""

    __slots__ = ("_salted",)

    def __init__(self, purpose: Literal["layer", "arm"], salt: str) -> None:
        """BLAKE2b's salt has 16 bytes: a text of any length is hashed to them first."""
        key = blake2b(salt.encode(), digest_size=16).digest()
        self._salted = blake2b(digest_size=8, salt=key, person=purpose.encode())

    def place(self, user: bytes) -> float:
        """The user's place. 53 of 64 bits, as a float has them: all 64 could round to 1.0, which is nobody's place."""
        hashed = self._salted.copy()
        hashed.update(user)
        return (int.from_bytes(hashed.digest(), "big") >> 11) * 2.0**-53


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One arm of one experiment. Compared by identity: each plan makes its own once."""

    experiment: str
    arm: str
    overrides: Overrides
    dealt: bool
    """By the hash: only such users are a fair sample. Neither by an allow list nor by force."""
    changes: bool
    """Whether it does anything otherwise than the control."""


class Assignment:
    """The running experiments of a desired state, made ready for asking. A user costs two hashes a layer."""

    def __init__(self, desired: Desired) -> None:
        running = [each for each in desired.experiments if not each.stopped]
        names = sorted({each.layer for each in running})
        self._layers = tuple(_Layer(name, [each for each in running if each.layer == name]) for name in names)
        self._place_of = {each.name: i for i, name in enumerate(names) for each in running if each.layer == name}

    def __bool__(self) -> bool:
        return bool(self._layers)

    def of(self, user_id: str, now: float) -> tuple[Choice, ...]:
        """The arms of a user at `now`, Unix seconds; at most one a layer."""
        user = user_id.encode()
        found = [layer.choice(user_id, user, now) for layer in self._layers]
        return tuple([each for each in found if each is not None])

    def forced(self, user_id: str, now: float, arms: Mapping[str, str]) -> tuple[Choice, ...]:
        """The same with these arms, experiment -> arm, whatever hash, ramp and deny list say; in other layers as ever.
        UnknownArmError for what is not there."""
        user = user_id.encode()
        by_layer: dict[int, Choice] = {}
        for experiment, arm in arms.items():
            choice = self._forced(experiment, arm)
            place = self._place_of[experiment]
            if (other := by_layer.setdefault(place, choice)) is not choice:
                layer = self._layers[place].name
                raise UnknownArmError(
                    f"{other.experiment} and {experiment} are both of the layer {layer}: nobody is in both"
                )
        found = [by_layer.get(i) or layer.choice(user_id, user, now) for i, layer in enumerate(self._layers)]
        return tuple([each for each in found if each is not None])

    def _forced(self, experiment: str, arm: str) -> Choice:
        if experiment not in self._place_of:
            names = ", ".join(sorted(self._place_of)) or "none"
            raise UnknownArmError(f"the experiment {experiment!r} does not run; running: {names}")
        given = self._layers[self._place_of[experiment]].given[experiment]
        if arm not in given:
            raise UnknownArmError(f"{experiment} has no running arm {arm!r}; running: {', '.join(given)}")
        return given[arm]


class _Layer:
    """The running experiments of one layer: ranges that do not overlap."""

    def __init__(self, name: str, experiments: Sequence[Experiment]) -> None:
        self.name = name
        self.draw = Draw("layer", name)
        self.running = tuple(_Running(each) for each in sorted(experiments, key=lambda each: each.start))
        self.starts = [each.start for each in self.running]
        self.given = {each.name: each.given for each in self.running}
        # Nobody is in two experiments of a layer: of two that allow a user, the first of the state has the user.
        self.allowed: dict[str, Choice | None] = {}
        denied = {each.name: each.denied for each in self.running}
        for each in experiments:
            for user, arm in each.allow.items():
                if user not in denied[each.name]:
                    self.allowed.setdefault(user, self.given[each.name].get(arm))

    def choice(self, user_id: str, user: bytes, now: float) -> Choice | None:
        if self.allowed and user_id in self.allowed:
            return self.allowed[user_id]
        place = self.draw.place(user)
        if (position := bisect_right(self.starts, place)) == 0:
            return None
        one = self.running[position - 1]
        if place >= one.end(now) or user_id in one.denied:
            return None
        return one.dealt[bisect_right(one.bounds, one.draw.place(user))]


class _Running:
    """One experiment."""

    def __init__(self, experiment: Experiment) -> None:
        self.name, self.start = experiment.name, experiment.start
        self.denied = frozenset(experiment.deny)
        self.draw = Draw("arm", experiment.salt)
        ends = [_whole(self.start + experiment.share * step.share) for step in experiment.ramp]
        self._times = [step.at for step in experiment.ramp]
        self._ends = [self.start, *ends] if ends else [_whole(self.start + experiment.share)]
        self.bounds = [_whole(each) for each in accumulate(arm.weight for arm in experiment.arms)]
        control = Arm(name=CONTROL, weight=0)
        self.dealt = [_choice(experiment, arm, dealt=True) for arm in (*experiment.arms, control)]
        """By place among `bounds`. A stopped arm is none: its users are served as the control is, but counting them
        with the control would make it larger than it was drawn."""
        given = [_choice(experiment, arm, dealt=False) for arm in (control, *experiment.arms)]
        self.given = {each.arm: each for each in given if each is not None}

    def end(self, now: float) -> float:
        """Where the part of the range ends that takes part."""
        return self._ends[bisect_right(self._times, now)]


def _choice(experiment: Experiment, arm: Arm, *, dealt: bool) -> Choice | None:
    return None if arm.stopped else Choice(experiment.name, arm.name, arm.overrides, dealt, bool(arm.overrides.given))


def _whole(bound: float) -> float:
    """1 where decimals were meant to add up to it."""
    return 1.0 if bound > 1 - EPSILON else bound


def merged(control: Overrides, arms: Iterable[Overrides]) -> Overrides:
    """The control with what `arms` do otherwise. Arms that one user can be in never set the same thing."""
    given = dict(control.given)
    for each in arms:
        given |= each.given
    return Overrides.model_validate(given)
