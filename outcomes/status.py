"""A verdict as text, for people. Programs take `Verdict.model_dump_json()`."""

from collections.abc import Sequence

from outcomes.results import ArmVerdict, Difference, Interval, Verdict

HEADS = (
    "arm",
    "users",
    "impressions",
    "clicks",
    "CTR",
    "eCPM",
    "clicks ÷ pCTR",
    "p50 ms",
    "p99 ms",
    "errors",
    "decision",
)
NONE = "-"


def text(verdict: Verdict) -> str:
    """The experiment's name and `described`."""
    return "\n".join([verdict.experiment, "", *described(verdict)])


def described(verdict: Verdict) -> list[str]:
    """Arms as a table, then differences with their intervals, then what is wrong."""
    arms = (verdict.control, *verdict.arms)
    lines = [*table([HEADS, *(_arm(arm) for arm in arms)]), ""]
    heads = (
        "against the control",
        "metric",
        "difference",
        f"{1 - verdict.alpha:.0%} interval",
        "lift",
        "interval",
        "by past",
    )
    rows = [_difference(arm.name, each) for arm in verdict.arms for each in arm.differences]
    lines += [*table([heads, *rows]), ""] if rows else []
    lines += [f"{arm.name}: {arm.note}" for arm in verdict.arms if arm.note]
    lines += [f"{arm.name}: stopped" for arm in verdict.arms if arm.stopped]
    if verdict.mismatch:
        lines.append(f"mismatch: {verdict.mismatch}")
    elif verdict.srm_log_e is not None:
        said = f"log e-value {verdict.srm_log_e:.3g}, a mismatch from {verdict.srm_limit:.3g}"
        lines.append(f"shares of users are as dealt: {said}; {verdict.moved:,} users were seen in two arms")
    lines.append(f"{verdict.metric} decides; intervals hold at every look, however often")
    return lines


def _arm(arm: ArmVerdict) -> tuple[str, ...]:
    return (
        arm.name,
        f"{arm.users:,}",
        f"{arm.impressions:,}",
        f"{arm.clicks:,}",
        shown(arm.ctr, ".3%"),
        shown(arm.ecpm, ".4g"),
        shown(arm.calibration.value, ".3f"),
        shown(arm.p50_ms, ".3g"),
        shown(arm.p99_ms, ".3g"),
        shown(arm.error_rate.value, ".3%"),
        arm.decision or "",
    )


def _difference(arm: str, each: Difference) -> tuple[str, ...]:
    form = "+.3%" if each.metric == "ctr" else "+.4g"
    absolute, lift = each.absolute, each.lift
    return (
        arm,
        each.metric,
        shown(absolute.value, form),
        _bounds(absolute, form),
        shown(lift.value, "+.2%"),
        _bounds(lift, "+.2%"),
        shown(each.explained, ".1%"),
    )


def _bounds(interval: Interval, form: str) -> str:
    return f"[{shown(interval.low, form)}, {shown(interval.high, form)}]"


def shown(value: float | None, form: str) -> str:
    """A number, or a dash for none."""
    return NONE if value is None else format(value, form)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as they must be."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(wide) for cell, wide in zip(row, widths, strict=True)).rstrip() for row in rows]
