"""Experiments against the known truth: simulated users ask a real service over HTTP, their events go through Redis and
the collector, and what the verdict says is held against their true click probabilities.

quality   `tenth` (a fine-ranker trained on a tenth of the log) and `by-pctr` (ads ordered by pCTR, without their bids)
          against `good`; the interval of the lift of the CTR must cover the true one
aa        in a layer of its own at the same time: an arm that does nothing; nothing must be said of it
bad       `untrained` (weights before the first step) and `offset` (1.5 on every logit) with guardrails: both must be
          stopped by themselves, and `sound` (does nothing) must not

The true lift is measured apart from the experiment: the same visits are asked for once with each arm forced, and the
mean of the true probabilities of what is shown is compared. Nobody clicks in these visits.
"""

import argparse
import asyncio
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from tqdm import tqdm

from benchmarks.closed_loop_world import GOOD, QUICK, SMALL, SPEC, UNTRAINED, make_bundles
from benchmarks.features import redis_server
from benchmarks.http.process import clean_environment, ended_cleanly, free_port
from benchmarks.report import Report, Table
from control.changes import Start, Stop
from control.client import Admin
from control.state import Arm, Auction, Experiment, Guardrails, Overrides, Platt
from models.marketplace.simulate import Asked, Simulation, figures
from models.marketplace.visitors import Visitors
from outcomes.results import Verdict

ROOT = Path(__file__).parents[1]
VISITS = (5_000, 2_000)
"""Of the first two experiments, and in the small version."""
TRUTH = (800, 300)
"""Visits that are asked for with every arm."""
BAD = 500
"""Visits between two looks whether the bad arms are stopped; at most as many of them as there are VISITS."""
K = 10
TOGETHER = 100
LOOK_S = 1.0
START_S = 60.0
GATE = ("--gate-overlap", "0", "--gate-psi", "99", "--gate-score-shift", "99", "--gate-latency-ratio", "9")
"""Open: the gate refuses an untrained network, and here the guardrails are to meet it."""
PATIENT = ("--default-deadline-ms", "10000", "--features-timeout-ms", "1500", "--redis-timeout-ms", "1000")
"""What is shown must not depend on how busy the machine is: no stage is left out, and users are known."""
SOUND = "sound"
QUALITY = Experiment(
    name="quality",
    salt="quality-1",
    arms=(
        Arm(name="tenth", weight=0.33, overrides=Overrides(bundle=SMALL)),
        Arm(name="by-pctr", weight=0.33, overrides=Overrides(auction=Auction(bid_exponent=0.0))),
    ),
)
SAME = Experiment(name="aa", layer="aa", salt="aa-1", arms=(Arm(name="same", weight=0.5),))
WORSE = Experiment(
    name="bad",
    salt="bad-1",
    arms=(
        Arm(name="untrained", weight=0.25, overrides=Overrides(bundle=UNTRAINED)),
        Arm(name="offset", weight=0.25, overrides=Overrides(calibration=Platt(offset=1.5))),
        Arm(name=SOUND, weight=0.25),
    ),
    guardrails=Guardrails(calibration=1.5, ctr_drop=0.1),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--visits N`."""
    parser.add_argument("--visits", type=int, metavar="N", help=f"of the experiments (default {VISITS[0]:,})")


def run(arguments: argparse.Namespace) -> Report:
    """`closed_loop.ARM.true_lift`, `.lift`, `.low`, `.high`, `.covered` (1 or 0) and, for bad arms, `.stopped`,
    `.visits`; `closed_loop.aa.quiet`. FileNotFoundError without a Redis server."""
    visits = arguments.visits or VISITS[arguments.quick]
    report = Report("closed-loop")
    with ended_cleanly(), tempfile.TemporaryDirectory(prefix="adrank-closed-loop-") as temporary:
        folder = Path(temporary)
        spec = QUICK if arguments.quick else SPEC
        bundles = make_bundles(spec, folder)
        with served(bundles / GOOD, folder) as world:
            simulation = Simulation(Visitors(spec, 1), Asked(world.url, K, TOGETHER, 8, None))
            world.change(Start(experiment=QUALITY, who="bench", why="compare"))
            world.change(Start(experiment=SAME, who="bench", why="compare with itself"))
            ask(simulation, visits, "quality and aa")
            world.settle()
            verdicts = {name: world.verdict(name) for name in ("quality", "aa")}
            truth = true_lifts(true_worth(world, simulation.visitors, TRUTH[arguments.quick], QUALITY))
            told = figures(simulation.tallies)
            world.change(Stop(experiment="quality", who="bench", why="it is known"))
            world.change(Start(experiment=WORSE, who="bench", why="be stopped"))
            asked = until_stopped(world, simulation, visits)
            reasons = world.reasons()
    compare(report, verdicts, truth, told)
    guard(report, asked, reasons)
    return report


@dataclass(frozen=True, slots=True)
class World:
    """A running service with its collector."""

    url: str
    redis: str
    key: str
    admin: Admin
    outcomes: Path

    def change(self, asked: Start | Stop) -> None:
        """Make a change and wait until it is served."""
        self.admin.wait(self.admin.change(asked), START_S)

    def settle(self) -> None:
        """Wait until what was asked is in the tables."""
        time.sleep(3 * LOOK_S + 1)

    def verdict(self, name: str) -> Verdict:
        """What `adrank experiment status` says."""
        options = ["--outcomes", str(self.outcomes), "--url", self.url, "--json"]
        said = subprocess.run(
            [sys.executable, str(ROOT / "adrank.py"), "experiment", "status", name, *options],
            env=environment(self.key),
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        return Verdict.model_validate(json.loads(said)["experiments"][0]["verdict"])

    def reasons(self) -> dict[str, str]:
        """Arm -> why a guardrail stopped it, as the audit log says."""
        changes = [change for change in self.admin.audit() if change.action == "guardrail"]
        return {str(change.what["arm"]): change.why for change in changes}


@contextmanager
def served(bundle: Path, folder: Path, *, collect: bool = True) -> Iterator[World]:
    """Redis with the bundle's users, the service, and the collector with its guardrails unless something else
    collects."""
    port, key = free_port(), secrets.token_hex(16)
    url, outcomes = f"http://127.0.0.1:{port}", folder / "outcomes"
    with redis_server() as redis_port, ExitStack() as stack:
        redis = f"redis://127.0.0.1:{redis_port}/0"
        subprocess.run(
            command("features", "load", "--redis", redis, "--bundle", str(bundle)),
            check=True,
            env=environment(key),
            stderr=subprocess.DEVNULL,
        )
        serve = command("serve", "--bundle", str(bundle), "--port", str(port), "--redis-url", redis)
        serve += ["--log-entries", "1000000", "--log-level", "error", *PATIENT, *GATE]
        stack.enter_context(running(serve, folder / "serve.log", environment(key, {"ADRANK_TESTING_KEY": key})))
        wait_ready(url, folder / "serve.log")
        if collect:
            words = command("outcomes", "--redis", redis, "--out", str(outcomes), "--flush-seconds", str(LOOK_S))
            words += ["--url", url, "--look-seconds", str(LOOK_S)]
            stack.enter_context(running(words, folder / "outcomes.log", environment(key)))
        yield World(url, redis, key, stack.enter_context(Admin(url, key, "bench")), outcomes)


def command(*words: str) -> list[str]:
    """Of `adrank`."""
    return [sys.executable, str(ROOT / "adrank.py"), *words]


def environment(key: str, more: dict[str, str] | None = None) -> dict[str, str]:
    """Ours, with the admin key and one thread."""
    return clean_environment() | {"ADRANK_ADMIN_KEY": key} | (more or {})


@contextmanager
def running(words: list[str], log: Path, variables: dict[str, str]) -> Iterator[None]:
    """A process that is told to stop at the end."""
    with log.open("wb") as file:
        process = subprocess.Popen(words, env=variables, stdout=file, stderr=file)
        try:
            yield
            if process.poll() is not None:
                raise OSError(f"{words[2]} ended with code {process.returncode}: {log.read_text()[-400:]}")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(START_S)


def wait_ready(url: str, log: Path) -> None:
    """OSError when the service is not ready in time."""
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise OSError(f"the service is not ready after {START_S:g} s: {log.read_text()[-400:]}")


def ask(simulation: Simulation, visits: int, what: str) -> None:
    """So many visits."""
    with tqdm(total=visits, unit=" visits", desc=what, disable=None) as bar:
        asyncio.run(simulation.run(visits, bar))


def until_stopped(world: World, simulation: Simulation, most: int) -> dict[str, int]:
    """Arm of `bad` -> visits until it was stopped, those that were not left out."""
    found: dict[str, int] = {}
    for done in range(BAD, most + 1, BAD):
        ask(simulation, BAD, "bad")
        world.settle()
        state = world.admin.state().agreed
        experiment = None if state is None else state.experiment("bad")
        assert experiment is not None, "it was started"
        for arm in experiment.arms:
            if arm.stopped:
                found.setdefault(arm.name, done)
        if found.keys() >= {arm.name for arm in experiment.arms} - {SOUND}:
            break
    return found


@dataclass(slots=True)
class Worth:
    """What an arm shows is truly worth."""

    shown: int = 0
    clicks: float = 0.0
    """Sum of the true click probabilities."""
    revenue: float = 0.0
    """Sum of those times bids."""

    @property
    def ctr(self) -> float:
        """True clicks an impression."""
        return self.clicks / self.shown

    @property
    def ecpm(self) -> float:
        """True revenue of 1,000 impressions."""
        return 1000 * self.revenue / self.shown


def true_worth(world: World, visitors: Visitors, visits: int, experiment: Experiment) -> dict[str, Worth]:
    """By arm, the control among them, of the same visits, which are asked for once with each arm. Nobody clicks."""
    found = {name: Worth() for name in ("control", *(arm.name for arm in experiment.arms))}
    key = {"Authorization": f"Bearer {world.key}"}
    with httpx.Client(base_url=world.url, timeout=30.0) as client:
        for _ in range(visits // TOGETHER):
            come = visitors.come(TOGETHER)
            bodies = visitors.ask(come, K)
            for name, worth in found.items():
                headers = key | {"X-Adrank-Arm": f"{experiment.name}={name}"}
                answers = [client.post("/v1/rank", json=body, headers=headers).raise_for_status() for body in bodies]
                ads = [answer.json()["ads"] for answer in answers]
                true = visitors.true_ctr(come, [[ad["ad_id"] for ad in each] for each in ads]).astype(np.float64)
                worth.shown += sum(map(len, ads))
                worth.clicks += float(true.sum())
                worth.revenue += sum(
                    float(row[: len(each)] @ np.array([ad["bid"] for ad in each]))
                    for row, each in zip(true, ads, strict=True)
                )
    return found


def true_lifts(worth: dict[str, Worth]) -> dict[str, float]:
    """Arm -> true CTR of what it shows ÷ that of the control − 1."""
    return {name: each.ctr / worth["control"].ctr - 1 for name, each in worth.items() if name != "control"}


def compare(report: Report, verdicts: dict[str, Verdict], truth: dict[str, float], told: dict[str, float]) -> None:
    """The arms whose truth is known."""
    rows: list[tuple[str | int | float, ...]] = []
    covered = []
    for verdict in verdicts.values():
        for arm in verdict.arms:
            true = truth.get(arm.name, 0.0)
            found = next((each.lift for each in arm.differences if each.metric == "ctr"), None)
            if found is None or found.low is None or found.high is None or found.value is None:
                raise ValueError(f"{arm.name}: there is no interval: {arm.note}; more --visits are needed")
            covered.append(found.low <= true <= found.high)
            report.figures |= {
                f"closed_loop.{arm.name}.{name}": value
                for name, value in (
                    ("true_lift", true),
                    ("lift", found.value),
                    ("low", found.low),
                    ("high", found.high),
                    ("covered", float(covered[-1])),
                    ("sample_true_lift", told[f"simulate.{verdict.experiment}.{arm.name}.true_lift"]),
                )
            }
            rows.append(
                (
                    f"{verdict.experiment}: {arm.name}",
                    arm.users,
                    arm.impressions,
                    f"{true:+.1%}",
                    f"{found.value:+.1%}",
                    f"[{found.low:+.1%}, {found.high:+.1%}]",
                    "yes" if covered[-1] else "NO",
                    arm.decision or "",
                )
            )
    quiet = verdicts["aa"].arms[0].decision == "no difference yet" and not verdicts["aa"].mismatch
    report.figures |= {"closed_loop.covered": float(np.mean(covered)), "closed_loop.aa.quiet": float(quiet)}
    heads = ("arm", "users", "impressions", "true lift", "lift", "95 % interval", "covers", "decision")
    report.tables.append(Table("CTR against the control", heads, rows))


def guard(report: Report, asked: dict[str, int], reasons: dict[str, str]) -> None:
    """The arms that had to be stopped, and the one that had not."""
    rows: list[tuple[str | int | float, ...]] = []
    for arm in WORSE.arms:
        stopped = arm.name in asked
        report.figures[f"closed_loop.{arm.name}.stopped"] = float(stopped)
        if stopped:
            report.figures[f"closed_loop.{arm.name}.visits"] = asked[arm.name]
        rows.append((arm.name, asked.get(arm.name, "never"), reasons.get(arm.name, "-")))
    heads = ("arm", "stopped after visits, at most", "why, as the audit log says")
    report.tables.append(Table("Stopped by guardrails", heads, rows))
