"""A loaded bundle as the control or an arm has it served: other sizes, one rung, another calibration, another auction.

A view shares graphs, arrays and golden proof with its bundle; making one takes microseconds and no memory to speak of.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from bundle.ladder import FULL
from control.assignment import merged
from control.reports import BundleReport
from control.state import Desired, Overrides, Platt
from service.budget import Estimates
from service.ladder import AUTO, OFF, Ladder
from service.load_gate import LoadGate
from service.loaded import AS_EVER, LoadedBundle, Sizes
from service.preparing import RefusedError

MOST_GROWTH = 10
"""An arm's stages may keep so many times what the bundle is served with. More is a slip of the pen, 30000 for 3000, and
would take the turns of everybody else."""
KEEPS = {"retrieval_keep": "retrieval", "qscore_keep": "qscore", "prerank_keep": "prerank"}
"""Override -> size."""
DEPENDENT = {"rung", *KEEPS}
"""Overrides that one bundle allows and another may not."""


class Views:
    """The views of one plan."""

    def __init__(self, bundles: Mapping[str, LoadedBundle]) -> None:
        self._bundles = bundles
        self._views: dict[Overrides, LoadedBundle] = {}
        self._resized: dict[tuple[str, Sizes], tuple[Estimates, LoadGate]] = {}

    def of(self, wanted: Overrides) -> LoadedBundle:
        """The bundle that `wanted` names, served as it says. RefusedError when that is impossible."""
        view = self._views.get(wanted)
        if view is None:
            view = self._views[wanted] = self._made(wanted)
        return view

    def _made(self, wanted: Overrides) -> LoadedBundle:
        loaded = self._loaded(wanted)
        sizes = _sizes(loaded, wanted)
        estimates, gate = self._measured(loaded, sizes)
        ladder = _ladder(loaded, wanted.rung, gate)
        platt = None if wanted.calibration == Platt() else wanted.calibration
        auction = wanted.auction or AS_EVER
        if (sizes, ladder, platt, auction) == (loaded.sizes, loaded.ladder, loaded.platt, loaded.auction):
            return loaded
        return replace(loaded, sizes=sizes, ladder=ladder, platt=platt, auction=auction, estimates=estimates)

    def _loaded(self, wanted: Overrides) -> LoadedBundle:
        assert wanted.bundle is not None
        if (loaded := self._bundles.get(wanted.bundle)) is None:
            there = ", ".join(sorted(self._bundles)) or "none"
            raise _refused(wanted.bundle, f"bundle {wanted.bundle!r} is not loaded; loaded: {there}")
        return loaded

    def _measured(self, loaded: LoadedBundle, sizes: Sizes) -> tuple[Estimates, LoadGate]:
        """Running means and load gate. Those of the bundle where the sizes are its own; others cost other times, and a
        dear arm must not drive the control down, nor have the control's stages left out: they begin with a copy."""
        if sizes == loaded.sizes:
            return loaded.estimates, loaded.ladder.gate
        gate = loaded.ladder.gate
        return self._resized.setdefault(
            (loaded.id, sizes), (loaded.estimates.copy(), LoadGate(gate.steps, gate.places))
        )


def check(desired: Desired, views: Views) -> None:
    """RefusedError unless everything that a user can be given is possible. What an override needs depends on the bundle
    alone, so it is enough to look at pairs of arms that one user can be in."""
    control = desired.control
    _named("the control", views, control)
    arms = list(_arms(desired))
    for _, name, arm in arms:
        _named(name, views, merged(control, [arm]))
    dependent = [each for each in arms if each[2].bundle is None and DEPENDENT & each[2].given.keys()]
    for layer, name, arm in arms:
        for other_layer, other, with_it in dependent if arm.bundle is not None else []:
            if layer != other_layer:
                _named(f"{name} together with {other}", views, merged(control, [arm, with_it]))
    if desired.shadow is not None:
        _named("the shadow", views, merged(control, [Overrides(bundle=desired.shadow.bundle)]))


def _arms(desired: Desired) -> Iterator[tuple[str, str, Overrides]]:
    """Layer, name and overrides of every arm that may be served and does something otherwise."""
    for experiment in desired.experiments:
        if not experiment.stopped:
            for arm in experiment.arms:
                if not arm.stopped and arm.overrides.given:
                    yield experiment.layer, f"arm {experiment.name}:{arm.name}", arm.overrides


def _named(name: str, views: Views, wanted: Overrides) -> None:
    try:
        views.of(wanted)
    except RefusedError as error:
        raise _refused(error.report.bundle_id, f"{name}: {error.report.error}") from None


def _sizes(loaded: LoadedBundle, wanted: Overrides) -> Sizes:
    sizes = loaded.sizes
    given = {size: value for keep, size in KEEPS.items() if (value := getattr(wanted, keep)) is not None}
    for size, value in given.items():
        if value > (most := MOST_GROWTH * getattr(sizes, size)):
            raise _refused(
                loaded.id,
                f"{size}_keep is {value}, at most {most} is allowed: {MOST_GROWTH} times what {loaded.id!r} keeps",
            )
    return replace(sizes, **given)


def _ladder(loaded: LoadedBundle, rung: str | None, gate: LoadGate) -> Ladder:
    """The rungs that may run; RefusedError for one that is not loaded. A single rung is never left because of the load,
    so its gate has one step and stays where it is."""
    ladder = loaded.ladder
    if rung in (None, AUTO):
        return ladder if gate is ladder.gate else Ladder(ladder.rungs, gate)
    wanted = FULL if rung == OFF else rung
    if not (found := tuple(each for each in ladder.rungs if each.name == wanted)):
        there = ", ".join([AUTO, OFF, *(each.name for each in ladder.rungs)])
        raise _refused(loaded.id, f"rung is {rung!r}, of bundle {loaded.id!r} these are loaded: {there}")
    return ladder if found == ladder.rungs else Ladder(found, LoadGate(1, gate.places))


def _refused(bundle_id: str, why: str) -> RefusedError:
    return RefusedError(BundleReport(bundle_id=bundle_id, status="refused", error=why))
