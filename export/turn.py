"""One turn of the loop: what was served is learnt from, and what was learnt is served. Each step leaves a file that
says what it did, so that a turn that was interrupted is taken up at the step that was cut off.

    TURN/STEP.json      figures of a finished step, its seconds among them
    TURN/outcomes/      of the collector        TURN/bundles/   the bundle until it is published
    TURN/qscore, prerank, finerank, compressed  checkpoints

Nothing is served before the last step: the store shows a bundle once it is whole, and only the state that the service
agreed on decides what is served.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.errors import PlaceError
from bundle.folder import open_bundle
from bundle.manifest import MANIFEST
from bundle.signature import sign
from bundle.store import publish
from control.changes import Rollback, Serve
from control.client import Admin, AdminError, RefusedError
from control.reports import BundleReport
from control.state import Overrides
from export.judgement import Limits, judged
from export.renewal import Stock, calibrated, compressed, continued, exported, prepared, recounted
from export.traffic import Collecting, Visiting, collecting, visit, wait
from models.checkpoint import open_checkpoint, write_json
from models.compression.recipe import Recipe
from models.data.prepared import PreparedData, open_prepared

STEPS = ("traffic", "prepare", "train", "compress", "judge", "export", "publish", "serve")
"""Of a turn whose networks are refused by `judge` the last one follows at once, and nothing is made or published."""
Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What every turn does in the same way."""

    url: str
    redis: str
    prefix: str
    dataset: Path
    bundles: Path
    """The service's bundle store."""
    data: Path
    """Where prepared data are kept."""
    recipe: Recipe
    limits: Limits
    """How much worse than what is served networks may be."""
    key: Path | None
    """Signs bundles; None: they are not signed."""
    minutes: float
    """Of waiting for traffic, where nobody is simulated."""
    seed: int
    timeout_s: float
    """For all processes to serve the bundle."""
    progress: bool


class Turn:
    """One folder of the work."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def result(self) -> Found | None:
        """All steps together, once the last one is over."""
        if not self.path("serve.json").exists():
            return None
        taken = [path for step in STEPS if (path := self.path(f"{step}.json")).exists()]
        return {key: value for path in taken for key, value in self.read(path).items()}

    @staticmethod
    def read(path: Path) -> Found:
        """What a finished step left."""
        found: Found = json.loads(path.read_text())
        return found

    def path(self, name: str) -> Path:
        """A file or folder of the turn."""
        return self.folder / name

    def step(self, name: str, act: Callable[[], Found]) -> Found:
        """What the step found: now, or when it was taken before."""
        path = self.path(f"{name}.json")
        if path.exists():
            return self.read(path)
        if self.plan.progress:
            print(f"{self.folder.name}: {name}", file=sys.stderr, flush=True)
        started = time.monotonic()
        found = act()
        found |= {f"{name}.seconds": time.monotonic() - started}
        write_json(path, found)
        return found

    def take(self, stock: Stock, name: str, visiting: Visiting | None, admin: Admin) -> Found:
        """All steps, or those that are left; `name`: of the new bundle."""
        self.step("traffic", lambda: self._traffic(stock, visiting))
        found = self.step("prepare", lambda: self._prepare(stock))
        data = open_prepared(Path(found["data"]))
        self.step("train", lambda: self._train(stock, data))
        self.step("compress", lambda: self._compress(data))
        refused = self.step("judge", lambda: self._judge(stock, data))["refused"]
        if refused:
            self.step("serve", lambda: {"is_served": False, "gate": f"not asked: {refused}"})
        else:
            self.step("export", lambda: self._export(stock, data, name))
            self.step("publish", lambda: self._publish(name))
            self.step("serve", lambda: serve(admin, name, self.plan.timeout_s))
        result = self.result
        assert result is not None, "the last step is over"
        return result

    def _traffic(self, stock: Stock, visiting: Visiting | None) -> Found:
        plan = self.plan
        where = Collecting(plan.redis, plan.prefix, plan.dataset, self.path("outcomes"), self.path("collector.log"))
        with collecting(where) as collector:
            if visiting is not None:
                found: Found = dict(visit(plan.url, visiting, progress=plan.progress))
            else:
                wait(plan.minutes, collector, where, progress=plan.progress)
                found = {}
        return found | {"served": stock.bundle.id}

    def _prepare(self, stock: Stock) -> Found:
        data = prepared(self.path("outcomes"), self.plan.data, stock, progress=self.plan.progress)
        rows = sum(size.impressions for size in data.prepared.splits.values())
        return {"data": str(data.folder), "rows": rows}

    def _train(self, stock: Stock, data: PreparedData) -> Found:
        plan = self.plan
        recounted(stock, data, self.path("qscore"), plan.seed)
        continued(stock.prerank, data, self.path("prerank"), plan.seed, progress=plan.progress)
        continued(stock.finerank, data, self.path("finerank"), plan.seed, progress=plan.progress)
        return {}

    def _compress(self, data: PreparedData) -> Found:
        plan = self.plan
        share = compressed(
            self.path("finerank"), plan.recipe, data, self.path("compressed"), plan.seed, progress=plan.progress
        )
        calibrated(self.path("compressed"), data)
        calibrated(self.path("prerank"), data)
        return {"bytes": share}

    def _judge(self, stock: Stock, data: PreparedData) -> Found:
        made = {name: open_checkpoint(self.path(of)) for name, of in (("finerank", "compressed"), ("prerank",) * 2)}
        found: Found = {"refused": ""}
        for name, each in judged(stock, made, data, self.plan.limits).items():
            found |= each.figures(name)
            if each.why:
                found["refused"] += f"{'; ' * bool(found['refused'])}{name} {each.word}: {each.why}"
        return found

    def _export(self, stock: Stock, data: PreparedData, name: str) -> Found:
        made_of = [self.path(each) for each in ("compressed", "prerank", "qscore")]
        folder = exported(made_of, data, stock, self.path("bundles"), name)
        if self.plan.key is not None:
            sign(folder, self.plan.key)
        return {"bundle": name}

    def _publish(self, name: str) -> Found:
        folder = self.path("bundles") / name
        there = self.plan.bundles / name / MANIFEST
        if not there.exists():
            publish(folder, str(self.plan.bundles))
        elif there.read_bytes() != (folder / MANIFEST).read_bytes():
            raise PlaceError(f"{there.parent} exists and is another bundle: choose another --name")
        open_bundle(self.plan.bundles / name)
        shutil.rmtree(folder.parent)
        return {}


def serve(admin: Admin, name: str, timeout_s: float) -> Found:
    """Have the service serve the bundle to everybody outside of experiments, or say why it does not. Refused, the state
    goes back to what is served. AdminError when the service does not answer, or not in time."""
    state = admin.state()
    if state.wanted is None:
        raise AdminError(f"{admin.url} serves nothing yet")
    version = state.wanted.version
    if state.wanted.control.bundle != name:
        control = state.wanted.control.model_copy(update={"bundle": name})
        why = "the loop's next bundle"
        version = admin.change(Serve(control=control, who=admin.who, why=why, expected=version))
    try:
        reports = [report for process in admin.wait(version, timeout_s).processes for report in process.bundles]
    except RefusedError as error:
        reports = [report for _, report in error.refusals]
        back = Rollback(who=admin.who, why=f"{name} was refused"[:1000], expected=version)
        admin.change(back)
    return {"is_served": not any(each.status == "refused" for each in reports if each.bundle_id == name)} | {
        "gate": verdict([each for each in reports if each.bundle_id == name])
    }


def verdict(reports: list[BundleReport]) -> str:
    """What the gate said, in a few words."""
    for report in reports:
        if report.status == "refused":
            failed = [each for each in report.checks if not each.passed]
            said = [f"{each.name} {_shown(each.found)}, limit {_shown(each.limit)}" for each in failed]
            return f"refused: {'; '.join(said) or report.error}"
    checks = max((len(report.checks) for report in reports), default=0)
    return f"passed {checks} checks"


def control_of(admin: Admin) -> Overrides:
    """What everybody outside of experiments is served. AdminError when nothing is."""
    state = admin.state().agreed
    if state is None:
        raise AdminError(f"{admin.url} serves nothing yet")
    return state.control


def seconds_of(found: Mapping[str, Any], *steps: str) -> float:
    """Of these steps together, as far as they were taken."""
    return sum(float(found.get(f"{step}.seconds", 0.0)) for step in steps)


def _shown(value: float | str | None) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
