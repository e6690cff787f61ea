"""What the service promises at a stated rate, and the verdict on it."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.outcome import Outcome
from loadtest.saturation import complaints

Milliseconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
RATE_MET = 0.01
"""Answers a second may be so much fewer than requests offered."""
EDGE = 3
"""Requests that may be under way when the time that counts ends."""


class SloError(ValueError):
    """A file that states no promise."""


class Slo(BaseModel):
    """What must hold while `rate` requests a second arrive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = Field(gt=0)
    """Requests a second."""
    p50_ms: Milliseconds | None = None
    p95_ms: Milliseconds | None = None
    p99_ms: Milliseconds
    error_rate: Share = 0.0
    """Requests without an answer of status 200: refused, failed, or too late."""
    degraded_rate: Share = 0.0
    """Answers that had to do without something."""


class Verdict(StrEnum):
    """What is said of the service."""

    PASS = "pass"
    FAIL = "fail"
    NONE = "no verdict"


EXIT_CODES = {Verdict.PASS: 0, Verdict.FAIL: 1, Verdict.NONE: 3}
"""2 is a test that could not be run."""


@dataclass(frozen=True, slots=True)
class Row:
    """One promise."""

    name: str
    measured: float
    limit: float
    unit: str
    """`ms`, `%` (values are shares) or `/s`."""
    holds: bool

    def text(self, value: float) -> str:
        """`value` in the unit of the row."""
        return f"{value:.3%}" if self.unit == "%" else f"{value:.1f} {self.unit}"


@dataclass(frozen=True, slots=True)
class Judged:
    """All promises, and whether they could be judged."""

    verdict: Verdict
    rows: list[Row]
    reasons: list[str]
    """Why there is no verdict."""

    def summary(self) -> dict[str, Any]:
        """For a file."""
        rows = [
            {"name": row.name, "measured": row.measured, "limit": row.limit, "unit": row.unit, "holds": row.holds}
            for row in self.rows
        ]
        return {"verdict": self.verdict.value, "rows": rows, "reasons": self.reasons}


def read_slo(path: Path) -> Slo:
    """SloError says what is wrong with the file; OSError when it cannot be read."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Slo.model_validate(read)
    except yaml.YAMLError as error:
        raise SloError(f"{path}: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        raise SloError(f"{path}: {wrong}") from error


def judge(outcome: Outcome, slo: Slo) -> Judged:
    """Hold what was measured against what is promised. No verdict when the generator did not keep up."""
    rows = [
        Row(f"p{percent}", measured, limit, "ms", outcome.latency.count > 0 and measured <= limit)
        for percent, limit in ((50, slo.p50_ms), (95, slo.p95_ms), (99, slo.p99_ms))
        if limit is not None
        for measured in [outcome.latency.percentile(percent)]
    ]
    wanted = outcome.offered_rate * (1 - RATE_MET) - EDGE / outcome.seconds
    rows += [
        Row("errors", outcome.error_rate, slo.error_rate, "%", outcome.error_rate <= slo.error_rate),
        Row("degraded", outcome.degraded_rate, slo.degraded_rate, "%", outcome.degraded_rate <= slo.degraded_rate),
        Row("rate", outcome.achieved_rate, wanted, "/s", outcome.achieved_rate >= wanted),
    ]
    reasons = complaints(outcome, slo.p99_ms)
    if reasons:
        return Judged(Verdict.NONE, rows, reasons)
    return Judged(Verdict.PASS if all(row.holds for row in rows) else Verdict.FAIL, rows, [])


def table(judged: Judged) -> str:
    """The rows as text."""
    lines = [f"{'':<10}{'measured':>14}{'allowed':>16}"]
    for row in judged.rows:
        sign = "≥" if row.name == "rate" else "≤"
        said = "" if row.holds else "   does not hold"
        lines.append(f"{row.name:<10}{row.text(row.measured):>14}{sign + ' ' + row.text(row.limit):>16}{said}")
    return "\n".join([*lines, *(f"not judged: {reason}" for reason in judged.reasons)])
