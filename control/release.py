"""`adrank release`: which bundle everybody is served from, the shadow, and back again."""

import argparse
import time

from control.changes import Rollback, Serve, SetShadow
from control.command_line import admin_of, asking, carry_out, changing, run, said
from control.reports import StateAnswer
from control.state import Arm, Desired, Overrides, Shadow


def main(argv: list[str]) -> int:
    """0 when done, 1 with one line when the service refused, 2 when what was asked is wrong."""
    return run("release", _parser(), argv)


def serve(arguments: argparse.Namespace) -> int:
    """Serve a bundle to everybody outside of experiments; what else the control sets stays."""
    with admin_of(arguments) as admin:
        state = admin.state().wanted
    before = state.control if state is not None else Overrides()
    control = before.model_copy(update={"bundle": arguments.bundle})
    return carry_out(arguments, Serve(control=control, **said(arguments)))


def shadow(arguments: argparse.Namespace) -> int:
    """Rank a share of the requests once more through another bundle; a share of 0 ends that."""
    wanted = Shadow(bundle=arguments.bundle, share=arguments.share) if arguments.share else None
    return carry_out(arguments, SetShadow(shadow=wanted, **said(arguments)))


def rollback(arguments: argparse.Namespace) -> int:
    """Serve an earlier version again."""
    return carry_out(arguments, Rollback(to=arguments.to, **said(arguments)))


def state(arguments: argparse.Namespace) -> int:
    """Print what is wanted, what is served, and what each process makes of it."""
    with admin_of(arguments) as admin:
        found = admin.state()
    print(found.model_dump_json(indent=2) if arguments.json else "\n".join(described(found)))
    return 0


def audit(arguments: argparse.Namespace) -> int:
    """Print who changed what, when and why, newest first."""
    with admin_of(arguments) as admin:
        for change in admin.audit(arguments.limit):
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(change.at))
            print(f"{at} UTC  {change.before} -> {change.after}  {change.action} by {change.who}: {change.why}")
    return 0


def described(found: StateAnswer) -> list[str]:
    """The lines that `state` prints."""
    lines = [f"wanted  {_state(found.wanted)}", f"agreed  {_state(found.agreed)}"]
    for process in found.processes:
        lines.append(f"process {process.process}: serves {process.serving}, prepared {process.prepared}")
        for report in process.bundles:
            lines.append(f"        {report.bundle_id} {report.status}" + (f": {report.error}" if report.error else ""))
            for check in report.checks:
                bound = "" if check.limit is None else f", limit {check.limit}"
                verdict = "passed" if check.passed else "FAILED"
                note = f" ({check.note})" if check.note else ""
                lines.append(f"          {verdict} {check.name}: {check.found}{bound}{note}")
    return lines


def _state(state: Desired | None) -> str:
    if state is None:
        return "none"
    parts = [f"version {state.version}: {_overrides(state.control)} for everybody else"]
    for each in state.experiments:
        if each.stopped:
            continue
        arms = ", ".join(_arm(arm) for arm in each.arms)
        parts.append(f"experiment {each.name} in {each.layer}: {arms}")
    if state.shadow is not None:
        parts.append(f"shadow {state.shadow.bundle} for {state.shadow.share:g}")
    return "\n          ".join(parts)


def _arm(arm: Arm) -> str:
    what = _overrides(arm.overrides) or "as the control"
    return f"{arm.name} {arm.weight:g} ({what}{', stopped' if arm.stopped else ''})"


def _overrides(overrides: Overrides) -> str:
    return ", ".join(str(value) if name == "bundle" else f"{name}={value}" for name, value in overrides.given.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adrank release", description="Change which bundle a running service serves.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    one = actions.add_parser("serve", help="serve a bundle to everybody outside of experiments")
    one.add_argument("bundle", metavar="BUNDLE", help="id of a bundle in the service's store")
    changing(one)
    one.set_defaults(run=serve)

    one = actions.add_parser("shadow", help="rank some requests once more through another bundle")
    one.add_argument("bundle", metavar="BUNDLE")
    one.add_argument("share", type=float, metavar="SHARE", help="of all requests, from 0 (end it) to 1")
    changing(one)
    one.set_defaults(run=shadow)

    one = actions.add_parser("rollback", help="serve an earlier version again")
    one.add_argument("--to", type=int, metavar="VERSION", help="[the one served before]")
    changing(one)
    one.set_defaults(run=rollback)

    one = actions.add_parser("state", help="what is wanted, served, and refused why")
    one.add_argument("--json", action="store_true", help="print it as JSON")
    asking(one)
    one.set_defaults(run=state)

    one = actions.add_parser("audit", help="who changed what, when and why")
    one.add_argument("--limit", type=int, default=100, metavar="N", help="[%(default)s]")
    asking(one)
    one.set_defaults(run=audit)
    return parser
