"""`adrank experiment`: start, ramp, stop and promote arms of a running service, and see how they do."""

import argparse
import json
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from control.changes import Promote, Ramp, Start, Stop, new_experiment
from control.client import AdminError
from control.command_line import admin_of, asking, carry_out, changing, run, said
from control.state import CONTROL, Experiment, RampStep
from outcomes import shadow as beside
from outcomes import status as shown
from outcomes.results import Verdict
from outcomes.tables import read_table
from outcomes.verdict import judge
from outcomes.watch import read_reading, tables_of

MOST_DAYS = 10_000
LEAST_DRAWS, MOST_DRAWS = 100, 100_000
"""Quantiles of 2.5 % need some hundred draws."""


def main(argv: list[str]) -> int:
    """0 when done, 1 with one line when the service refused, 2 when what was asked is wrong."""
    return run("experiment", _parser(), argv)


def start(arguments: argparse.Namespace) -> int:
    """Start the experiment of a file, or the usual one: another bundle for a share of the users."""
    if arguments.file is not None:
        experiment = Experiment.model_validate_json(arguments.file.read_bytes())
    else:
        salt = arguments.salt or secrets.token_hex(8)
        experiment = new_experiment(arguments.name, arguments.arm, arguments.bundle, arguments.weight, salt)
    return carry_out(arguments, Start(experiment=experiment, **said(arguments)))


def ramp(arguments: argparse.Namespace) -> int:
    """Let in a share of the experiment's users, now or in steps."""
    now = time.time()
    steps = tuple(RampStep(at=now + hours * 3600, share=share) for share, hours in arguments.steps)
    return carry_out(arguments, Ramp(experiment=arguments.name, ramp=steps, **said(arguments)))


def stop(arguments: argparse.Namespace) -> int:
    """End an experiment, or one arm of it."""
    return carry_out(arguments, Stop(experiment=arguments.name, arm=arguments.arm, **said(arguments)))


def promote(arguments: argparse.Namespace) -> int:
    """Make an arm the control, and end its experiment."""
    return carry_out(arguments, Promote(experiment=arguments.name, arm=arguments.arm, **said(arguments)))


def status(arguments: argparse.Namespace) -> int:
    """Print the experiments as they run, and with the collector's tables what they say."""
    with admin_of(arguments) as admin:
        state = admin.state().agreed
    known = state.experiments if state is not None else ()
    chosen = [each for each in known if arguments.name in (None, each.name)]
    if arguments.name is not None and not chosen:
        names = ", ".join(each.name for each in known) or "none"
        raise AdminError(f"the experiment {arguments.name!r} is not known; there are: {names}")
    verdicts = [verdict_of(arguments, each) for each in chosen]
    if arguments.json:
        whole = [
            {"experiment": each.model_dump(mode="json"), "verdict": verdict and verdict.model_dump(mode="json")}
            for each, verdict in zip(chosen, verdicts, strict=True)
        ]
        print(json.dumps({"experiments": whole}, indent=2))
        return 0
    for each, verdict in zip(chosen, verdicts, strict=True):
        lines = described(each, time.time())
        if verdict is not None:
            lines += ["", *shown.described(verdict), ""]
        print("\n".join(lines))
    return 0


def shadow(arguments: argparse.Namespace) -> int:
    """Print what the shadow was worth beside the live bundle, by the collector's tables. Asks no service."""
    _has_tables(arguments.outcomes)
    since = arguments.since if arguments.days is None else round((time.time() - arguments.days * 86_400) * 1000)
    rows = read_table(arguments.outcomes, "shadow", max(0, since)).filter(pl.col("time_ms") >= since)
    verdicts = beside.judge(rows, arguments.replicates)
    if arguments.json:
        print(json.dumps({"shadows": [each.model_dump(mode="json") for each in verdicts]}, indent=2))
        return 0
    if not verdicts:
        what = "no impression" if since <= 0 else f"no impression from {_minute(since)} UTC on"
        print(f"{what} was scored by a shadow: is there one, and is the service's log_entries above 0?")
        return 0
    print("\n\n".join("\n".join(beside.described(each)) for each in verdicts))
    return 0


def verdict_of(arguments: argparse.Namespace, experiment: Experiment) -> Verdict | None:
    """What the collector's tables say of it by now; None where no folder of tables was named."""
    if arguments.outcomes is None:
        return None
    _has_tables(arguments.outcomes)
    reading = read_reading(arguments.reading)
    return judge(experiment, *tables_of(arguments.outcomes, reading, experiment), reading, time.time())


def _minute(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at_ms / 1000))


def _has_tables(folder: Path) -> None:
    if not (folder / "requests").is_dir():
        raise AdminError(f"{folder}: holds no tables of `adrank outcomes`")


def described(experiment: Experiment, now: float) -> list[str]:
    """The lines of one experiment at `now`, Unix seconds."""
    begun = time.strftime("%Y-%m-%d %H:%M", time.gmtime(experiment.started_at))
    state = "stopped" if experiment.stopped else "running"
    taking = experiment.share * (0.0 if experiment.stopped else experiment.share_at(now))
    rest = 1 - sum(arm.weight for arm in experiment.arms)
    lines = [
        f"{experiment.name}: {state} since {begun} UTC, {taking:.1%} of all users, in layer {experiment.layer}",
        f"  {CONTROL}: {rest:.1%} of them",
    ]
    for arm in experiment.arms:
        what = ", ".join(f"{name} {value}" for name, value in arm.overrides.given.items()) or "as the control"
        lines.append(f"  {arm.name}: {arm.weight:.1%}{', stopped' if arm.stopped else ''}: {what}")
    return lines


def step(text: str) -> tuple[float, float]:
    """SHARE or SHARE@HOURS: from so many hours after now on."""
    share, _, hours = text.partition("@")
    try:
        return float(share), float(hours or 0)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither SHARE nor SHARE@HOURS, like 0.1 or 0.5@24") from error


def moment(text: str) -> int:
    """Unix milliseconds, or a date or date and time, of UTC where it does not say."""
    if text.isdecimal():
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither Unix milliseconds nor a date like 2026-04-30") from None
    return round((found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp() * 1000)


def days(text: str) -> float:
    """A number of days."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < MOST_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days above 0 and below {MOST_DAYS:,}")
    return number


def draws(text: str) -> int:
    """How many draws of users an interval is of."""
    number = int(text) if text.isdecimal() else 0
    if not LEAST_DRAWS <= number <= MOST_DRAWS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {LEAST_DRAWS} to {MOST_DRAWS:,}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adrank experiment", description="Compare bundles and settings on users.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    one = actions.add_parser("start", help="start an experiment")
    what = one.add_mutually_exclusive_group(required=True)
    what.add_argument("--file", type=Path, metavar="FILE", help="the experiment as JSON (docs/experiments.md)")
    what.add_argument("--bundle", metavar="BUNDLE", help="the usual one: this bundle against the control's")
    one.add_argument("--name", default="trial", help="its name, without a file [%(default)s]")
    one.add_argument("--arm", default="candidate", help="name of the arm, without a file [%(default)s]")
    one.add_argument("--weight", type=float, default=0.5, help="share of the users, without a file [%(default)s]")
    one.add_argument("--salt", help="deals users out to arms, without a file [drawn]")
    changing(one)
    one.set_defaults(run=start)

    one = actions.add_parser("ramp", help="let in a share of the users, now or in steps")
    one.add_argument("name", metavar="EXPERIMENT")
    one.add_argument("steps", nargs="+", type=step, metavar="SHARE[@HOURS]", help="from so many hours after now on")
    changing(one)
    one.set_defaults(run=ramp)

    one = actions.add_parser("stop", help="end an experiment, or one arm of it")
    one.add_argument("name", metavar="EXPERIMENT")
    one.add_argument("--arm", metavar="ARM")
    changing(one)
    one.set_defaults(run=stop)

    one = actions.add_parser("promote", help="make an arm the control, and end its experiment")
    one.add_argument("name", metavar="EXPERIMENT")
    one.add_argument("arm", metavar="ARM")
    changing(one)
    one.set_defaults(run=promote)

    one = actions.add_parser("status", help="how experiments stand")
    one.add_argument("name", nargs="?", metavar="EXPERIMENT")
    one.add_argument(
        "--outcomes", type=Path, metavar="DIR", help="folder of `adrank outcomes`: print the verdict by its tables too"
    )
    one.add_argument("--reading", type=Path, metavar="FILE", help="how it is read, JSON (docs/verdict.md)")
    one.add_argument("--json", action="store_true", help="print it as JSON")
    asking(one)
    one.set_defaults(run=status)

    one = actions.add_parser(
        "shadow", help="AUC and GAUC of the shadow beside the live bundle, on the same impressions"
    )
    one.add_argument("--outcomes", type=Path, required=True, metavar="DIR", help="folder of `adrank outcomes`")
    window = one.add_mutually_exclusive_group()
    window.add_argument(
        "--since",
        type=moment,
        default=0,
        metavar="TIME",
        help="of impressions from then on: Unix milliseconds, or a date such as 2026-04-30 (UTC) or "
        "2026-04-30T00:00+08:00 [all]",
    )
    window.add_argument("--days", type=days, metavar="N", help="of the last N days [all]")
    one.add_argument(
        "--replicates", type=draws, default=1000, metavar="N", help="draws of users for the intervals [%(default)s]"
    )
    one.add_argument("--json", action="store_true", help="print it as JSON")
    one.set_defaults(run=shadow)
    return parser
