"""What an agreed version of the desired state means in this process: its bundles, loaded, and who gets which."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bundle.folder import Bundle
from control.assignment import Assignment, Choice, UnknownArmError, merged
from control.state import Desired, Overrides
from service.errors import InvalidRequestError
from service.loaded import LoadedBundle
from service.views import Views, check

ARM_HEADER = "X-Adrank-Arm"
"""Names the arms that a test wants; see service/forced_arms.py."""
KEPT = 10_000
"""Combinations of arms whose outcome is kept: ten layers of three arms have 59,049, and making one takes 10 us. Of arms
that change something there are fewer combinations: seven things can be changed, each in one layer."""


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What one user gets. Shared by all requests in the same arms."""

    live: LoadedBundle
    version: int
    """Of the desired state."""
    arms: Mapping[str, str]
    """Experiment -> arm, `control` included, of all the user is in."""
    dealt: Mapping[str, str]
    """Those of them that the hash dealt: what outcomes may be counted for."""
    overrides: Overrides
    """The control's, with those of the arms: what `live` was made by."""


@dataclass(frozen=True, slots=True)
class ShadowView:
    """The bundle that ranks some requests once more."""

    view: LoadedBundle
    """As the control would be served from it, with running means of its own."""
    share: float


class Plan:
    """One version of the desired state with every bundle it names. A request takes the reference once and keeps it."""

    __slots__ = ("_assignment", "_outside", "_overrides", "_served", "_views", "bundles", "desired", "shadow")

    def __init__(self, desired: Desired, bundles: Mapping[str, LoadedBundle]) -> None:
        """`bundles` by id: at least those of `desired.bundles`. RefusedError names the arm that cannot be served, and
        why: then nothing of the version is."""
        self.desired, self.bundles = desired, bundles
        self._views = Views(bundles)
        check(desired, self._views)
        self._assignment = Assignment(desired)
        self._served: dict[tuple[Choice, ...], Served] = {}
        self._overrides: dict[tuple[Choice, ...], Overrides] = {}
        self._outside = self._of(())
        self.shadow = self._shadow()
        """None: no request is ranked once more."""

    @property
    def version(self) -> int:
        """Of the desired state."""
        return self.desired.version

    @property
    def control(self) -> LoadedBundle:
        """What users outside of all experiments are served from."""
        return self._outside.live

    @property
    def catalogues(self) -> tuple[Bundle, ...]:
        """All bundles that the version names, the control's first."""
        control = self.control.id
        others = sorted(self.desired.bundles - {control})
        return tuple(self.bundles[name].bundle for name in (control, *others))

    def users_of(self, bundle_id: str) -> list[str]:
        """Who is served from a bundle: `control`, `EXPERIMENT:ARM` for arms that name it, `shadow`."""
        control = ["control"] if bundle_id == self.desired.control.bundle else []
        arms = [
            f"{experiment.name}:{arm.name}"
            for experiment in self.desired.experiments
            for arm in experiment.arms
            if not experiment.stopped and not arm.stopped and arm.overrides.bundle == bundle_id
        ]
        shadow = ["shadow"] if self.desired.shadow is not None and self.desired.shadow.bundle == bundle_id else []
        return [*control, *arms, *shadow]

    def of(self, user_id: str, now: float, forced: Mapping[str, str] | None = None) -> Served:
        """What a user gets at `now`, Unix seconds. `forced`: experiment -> arm, as a test wants it; InvalidRequestError
        for an arm that does not run."""
        if forced:
            try:
                return self._of(self._assignment.forced(user_id, now, forced))
            except UnknownArmError as error:
                raise InvalidRequestError(str(error), ARM_HEADER, "running experiments and arms") from error
        if not self._assignment:
            return self._outside
        choices = self._assignment.of(user_id, now)
        return self._served.get(choices) or self._of(choices)

    def _of(self, choices: tuple[Choice, ...]) -> Served:
        changing = tuple(each for each in choices if each.changes)
        overrides = self._overrides.get(changing)
        if overrides is None:
            overrides = merged(self.desired.control, [each.overrides for each in changing])
            self._overrides[changing] = overrides
        arms = {each.experiment: each.arm for each in choices}
        dealt = {each.experiment: each.arm for each in choices if each.dealt}
        if len(self._served) >= KEPT:
            self._served.clear()
        found = self._served[choices] = Served(self._views.of(overrides), self.version, arms, dealt, overrides)
        return found

    def _shadow(self) -> ShadowView | None:
        if (shadow := self.desired.shadow) is None or not shadow.share:
            return None
        view = self._views.of(merged(self.desired.control, [Overrides(bundle=shadow.bundle)]))
        return ShadowView(replace(view, estimates=view.estimates.copy()), shadow.share)
