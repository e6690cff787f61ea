"""The result as one HTML page that needs no network and no script."""

from html import escape

from loadtest.knee import Knee
from loadtest.outcome import Outcome
from loadtest.result import Result, Stretch
from loadtest.slo import Judged, Verdict
from loadtest.svg import Line, Mark, chart, waterfall

INSIDE = ("features", "queue", "eligibility", "retrieval", "qscore", "prerank", "finerank", "auction")
"""Parts of an answer in their order; what they leave of the total is called `other`."""
SIGNS = {Verdict.PASS: "holds", Verdict.FAIL: "does not hold", Verdict.NONE: "no verdict"}
GOOD, BAD = "<td>holds</td>", '<td class="bad">does not hold</td>'
STYLE = """
:root { color-scheme: light dark; --ink: #1d2730; --paper: #fff; --soft: #6b7785; --line: #d9dfe5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --paper: #14191f; --soft: #93a0ad; --line: #323b45; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 900px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
.verdict { display: inline-block; padding: .3rem .9rem; border-radius: .4rem; color: #fff; font-weight: 600; }
.pass { background: #2e7d4f; } .fail { background: #b3372f; } .none { background: #8a6d1f; }
p.soft, td.soft { color: var(--soft); } table { border-collapse: collapse; width: 100%; }
th, td { text-align: right; padding: .25rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
td.bad { color: #d2453b; font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--soft); }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .limit { stroke: #d2453b; stroke-dasharray: 4 3; }
.legend span { margin-right: 1.2rem; color: var(--soft); font-size: 13px; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem; margin-right: .35rem; }
"""


def page(result: Result) -> str:
    """The whole page."""
    parts = [_head(result)]
    for stretch in result.stretches:
        parts += _stretch(stretch, result)
    if result.closed is not None:
        parts += _closed(result.stretches[0].outcome, result.closed)
    if result.knee is not None:
        parts += _knee(result, result.knee)
    title = f"Load test: {result.verdict}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{chr(10).join(parts)}\n</body></html>\n"
    )


def _head(result: Result) -> str:
    kind = {Verdict.PASS: "pass", Verdict.FAIL: "fail", Verdict.NONE: "none"}[result.verdict]
    notes = "".join(f"<p>{escape(note)}</p>" for note in result.notes)
    return (
        f"<h1>Load test of bundle {escape(result.bundle)}</h1>"
        f'<p class="soft">{escape(result.scenario)}, {result.slo.rate:g} requests/s, {escape(result.url)}, '
        f"seed {result.seed}</p>"
        f'<p id="verdict" class="verdict {kind}">{escape(result.verdict)}</p>{notes}'
    )


def _stretch(stretch: Stretch, result: Result) -> list[str]:
    outcome = stretch.outcome
    parts = [f"<h2>{escape(stretch.name)}</h2>"]
    if stretch.judged is not None:
        parts.append(_promises(stretch.judged))
    parts.append(
        f'<p class="soft">{outcome.offered} requests in {outcome.seconds:.0f} s; sent with a lag of '
        f"{outcome.lag.percentile(50):.2f} ms (p99 {outcome.lag.percentile(99):.2f}); "
        f"{outcome.processor:.0%} of a core for the generator; statuses {escape(_counts(outcome.statuses))}"
        f"{'; degraded: ' + escape(_counts(outcome.reasons)) if outcome.reasons else ''}</p>"
    )
    marks = [Mark(f"promised p99 {result.slo.p99_ms:g} ms", result.slo.p99_ms, across=True)]
    marks += [Mark(done.name, done.began_s) for done in stretch.actions]
    over = [
        Line(name, [(each.at, each.latency.percentile(percent)) for each in outcome.windows])
        for name, percent in (("p50", 50.0), ("p95", 95.0), ("p99", 99.0))
    ]
    parts.append(chart(over, "seconds from the start, by when a request was due", "ms", marks))
    trouble = [
        Line("offered/s", [(each.at, each.offered) for each in outcome.windows]),
        Line("failed/s", [(each.at, each.failed) for each in outcome.windows]),
        Line("degraded/s", [(each.at, each.degraded) for each in outcome.windows]),
    ]
    parts.append(chart(trouble, "seconds from the start", "requests/s", logarithmic=False))
    parts += _stages(outcome)
    if len(outcome.bundles) > 1:
        parts.append(_bundles(outcome))
    return parts


def _promises(judged: Judged) -> str:
    rows = [
        f"<tr><td>{row.name}</td><td>{row.text(row.measured)}</td><td>{'≥' if row.name == 'rate' else '≤'} "
        f"{row.text(row.limit)}</td>{GOOD if row.holds else BAD}</tr>"
        for row in judged.rows
    ]
    reasons = "".join(f"<p>No verdict: {escape(reason)}.</p>" for reason in judged.reasons)
    return f"<table><tr><th>promise</th><th>measured</th><th>allowed</th><th></th></tr>{''.join(rows)}</table>{reasons}"


def _stages(outcome: Outcome) -> list[str]:
    known = [(name, outcome.stages[name]) for name in INSIDE if name in outcome.stages]
    if "total" not in outcome.stages:
        return []
    total, network = outcome.stages["total"], outcome.stages["network"]
    rest = max(total.mean - sum(each.mean * each.count / total.count for _, each in known), 0.0)
    bars = [(name, each.percentile(50), each.percentile(99)) for name, each in known]
    bars += [("other", rest, rest), ("network", network.percentile(50), network.percentile(99))]
    said = '<p class="soft">Where a request spends its time, by Server-Timing: medians in turn, lines to p99.'
    return [said + " <i>other</i>: mean of what is left of the service's total.</p>", waterfall(bars)]


def _bundles(outcome: Outcome) -> str:
    rows = [
        f"<tr><td>{escape(name or 'none named')}</td><td>{each.count}</td><td>{each.percentile(50):.1f}</td>"
        f"<td>{each.percentile(95):.1f}</td><td>{each.percentile(99):.1f}</td></tr>"
        for name, each in outcome.bundles.items()
    ]
    head = "<tr><th>bundle that answered</th><th>answers</th><th>p50 ms</th><th>p95 ms</th><th>p99 ms</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _closed(main: Outcome, closed: Outcome) -> list[str]:
    rows = [
        f"<tr><td>{name}</td><td>{each.percentile(50):.1f}</td><td>{each.percentile(95):.1f}</td>"
        f"<td>{each.percentile(99):.1f}</td><td>{each.maximum:.1f}</td></tr>"
        for name, each in (
            ("open loop, from the intended start", main.latency),
            ("open loop, from when it was sent", main.uncorrected),
            ("closed loop, from when it was sent", closed.uncorrected),
        )
    ]
    head = "<tr><th>latency</th><th>p50 ms</th><th>p95 ms</th><th>p99 ms</th><th>largest ms</th></tr>"
    return [
        "<h2>Coordinated omission</h2>",
        '<p class="soft">Clients that wait for an answer before they send again ask less while the service stalls, and '
        "so leave out just those requests that would have been slow. Only the first line is judged.</p>",
        f"<table>{head}{''.join(rows)}</table>",
    ]


def _knee(result: Result, knee: Knee) -> list[str]:
    steps = [step for step in knee.steps if step.outcome.latency.count]
    lines = [
        Line(f"p{percent:g}", [(step.rate, step.outcome.latency.percentile(percent)) for step in steps], dots=True)
        for percent in (50.0, 95.0, 99.0)
    ]
    marks = [Mark(f"promised p99 {result.slo.p99_ms:g} ms", result.slo.p99_ms, across=True)]
    marks += [Mark("knee", knee.rate)] if knee.rate is not None else []
    rows = [
        f"<tr><td>{step.rate:.0f}</td><td>{step.outcome.achieved_rate:.0f}</td>"
        f"<td>{step.outcome.latency.percentile(50):.1f}</td><td>{step.outcome.latency.percentile(99):.1f}</td>"
        f"<td>{step.outcome.error_rate:.2%}</td><td>{step.outcome.degraded_rate:.2%}</td>"
        f"<td>{SIGNS[step.judged.verdict]}</td></tr>"
        for step in knee.steps
    ]
    names = ("requests/s", "answered/s", "p50 ms", "p99 ms", "errors", "degraded", "promise")
    return [
        "<h2>Knee</h2>",
        f"<p>{escape(knee.text())}.</p>",
        chart(lines, "requests/s offered", "ms", marks),
        f"<table><tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>{''.join(rows)}</table>",
    ]


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} × {count}" for name, count in sorted(counts.items(), key=lambda each: -each[1]))
