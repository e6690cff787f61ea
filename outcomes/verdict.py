"""What an experiment says: arms in numbers, how far each is from the control, and whether that may be read."""

import numpy as np
import polars as pl

from control.state import CONTROL, Experiment
from outcomes.arm_users import Column, Dealt, Served, dealt
from outcomes.comparison import Comparison, calibration
from outcomes.results import ArmVerdict, Decision, Difference, Interval, Reading, Verdict
from outcomes.statistics.mismatch import log_e_value
from outcomes.statistics.moments import Moments
from outcomes.statistics.ratios import within
from outcomes.statistics.sequences import share, width


def judge(
    experiment: Experiment,
    requests: pl.LazyFrame | pl.DataFrame,
    impressions: pl.LazyFrame | pl.DataFrame,
    reading: Reading,
    now: float,
) -> Verdict:
    """The verdict on `experiment` by the tables of outcomes; what lies before it started is users' past."""
    users = dealt(requests, impressions, experiment, reading.past_days)
    moments = {name: Moments.of(rows) for name, rows in users.rows.items()}
    log_e = _mismatch_evidence(experiment, moments)
    limit = -float(np.log(reading.srm_alpha))
    mismatch = _mismatch(users, moments, log_e, limit, reading)
    compared = Comparison(experiment, moments, reading)
    arms = []
    for arm in experiment.arms:
        differences, note = compared.differences(arm.name), compared.short_of(arm.name)
        decided = next((each for each in differences if each.metric == reading.metric), None)
        arms.append(
            _arm(arm.name, experiment, users, moments, reading).model_copy(
                update={
                    "stopped": arm.stopped or experiment.stopped,
                    "differences": differences,
                    "ctr_lift": compared.guarded_lift(arm.name),
                    "calibration_ratio": compared.guarded_calibration(arm.name),
                    "decision": "mismatch: do not read" if mismatch else _decision(decided),
                    "note": note,
                }
            )
        )
    return Verdict(
        experiment=experiment.name,
        at=now,
        metric=reading.metric,
        alpha=reading.alpha,
        control=_arm(CONTROL, experiment, users, moments, reading),
        arms=tuple(arms),
        srm_log_e=log_e,
        srm_limit=limit,
        moved=users.moved,
        mismatch=mismatch,
    )


def _arm(name: str, experiment: Experiment, users: Dealt, moments: dict[str, Moments], reading: Reading) -> ArmVerdict:
    own, served, guard = moments[name], users.served.get(name, Served()), experiment.guardrails
    total = {column: float(own.total[column]) for column in Column}
    seen = total[Column.IMPRESSIONS]
    wide = width(np.asarray(seen), reading.planned_impressions, reading.guard_alpha)
    return ArmVerdict(
        name=name,
        stopped=experiment.stopped,
        users=int(own.users),
        impressions=int(seen),
        clicks=int(total[Column.CLICKS]),
        revenue=total[Column.REVENUE],
        ctr=total[Column.CLICKS] / seen if seen else None,
        ecpm=total[Column.REVENUE] / seen if seen else None,
        calibration=Interval.of(within(calibration(own), wide)),
        requests=served.requests,
        failed=served.failed,
        degraded=served.degraded,
        p50_ms=served.p50_ms,
        p99_ms=served.p99_ms,
        error_rate=_share(served.failed, served.requests, guard.error_rate, reading),
        slow=_share(served.slow, served.requests, 0.01, reading) if guard.p99_ms is not None else Interval(),
    )


def _share(count: int, of: int, near: float | None, reading: Reading) -> Interval:
    """Bounds tightest about `near`, a guardrail's limit; without one, or at a limit no prior stands on, about 1 %."""
    if not of:
        return Interval()
    found = share(count, of, near if near is not None and 0.0 < near < 1.0 else 0.01, reading.guard_alpha)
    return Interval(value=found.value, low=found.low, high=found.high)


def _decision(decided: Difference | None) -> Decision:
    if decided is None or decided.absolute.low is None or decided.absolute.high is None:
        return "no difference yet"
    if decided.absolute.low > 0:
        return "better"
    return "worse" if decided.absolute.high < 0 else "no difference yet"


def _mismatch_evidence(experiment: Experiment, moments: dict[str, Moments]) -> float | None:
    """Log e-value over arms that run and have a share of users."""
    weights = {arm.name: arm.weight for arm in experiment.arms}
    weights[CONTROL] = 1.0 - sum(weights.values())
    over = {arm.name for arm in experiment.arms if arm.stopped}
    running = {name: weight for name, weight in weights.items() if name not in over and weight > 1e-9}
    if len(running) < 2:
        return None
    counts = np.array([float(moments[name].users) for name in running])
    whole = sum(running.values())
    return float(log_e_value(counts, [weight / whole for weight in running.values()]))


def _mismatch(
    users: Dealt,
    moments: dict[str, Moments],
    log_e: float | None,
    limit: float,
    reading: Reading,
) -> str:
    if log_e is not None and log_e > limit:
        came = ", ".join(f"{name} {int(each.users):,}" for name, each in moments.items())
        return f"users came as {came}, not as they were dealt: log e-value {log_e:.3g}, limit {limit:.3g}"
    everybody = sum(float(each.users) for each in moments.values())
    if everybody >= reading.min_users and users.moved > reading.most_moved * everybody:
        return f"{users.moved:,} of {everybody:,.0f} users were seen in two arms, limit {reading.most_moved:g} of all"
    return ""
