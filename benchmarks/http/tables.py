"""What was measured, as figures, tables and curves.

http.<unit>.throughput.<server>             requests a second, 4 connections, closed loop
http.<unit>.p50_ms.<server>, p99_ms         1 connection, closed loop
http.<unit>.cpu_ms.<server>                 processor time of one request, 4 connections
http.<unit>.p99_loaded_ms.<server>          open loop at 80 % of the server's own throughput
http.<unit>.throughput_ratio.<peer>         ours ÷ the peer's, 4 connections; throughput_ratio_1: 1 connection
http.<unit>.p99_ratio.<peer>                the peer's ÷ ours, each at 80 % of its own; .best: the best peer's
http.<unit>.factorised.…                    the same with our graph in the peers' servers: what the server itself costs
http.light.over_paper_ratio.<peer>          our throughput, light ÷ the peer's, paper; 4 connections
http.light.overhead_ratio                   p50 of a request that reads its user from Redis ÷ p50 of scoring in process
http.light.overhead_kept_ratio              the same when the user is kept from before; overhead_thread_ratio: and a
                                            worker thread ranks instead of the event loop
http.light.turns_over_thread                requests a second at 4 connections: event loop ÷ worker thread
"""

from collections.abc import Mapping

from benchmarks.http.overhead import KEPT, READ, THREAD, Overhead
from benchmarks.http.rounds import BUSY, HIGHEST, Seen, middle, ratio
from benchmarks.http.servers import OURS
from benchmarks.report import Report, Table

COLUMNS = (
    "server",
    "1 conn req/s",
    "p50 ms",
    "p99 ms",
    f"{BUSY} conn req/s",
    "min-max",
    "p50 ms",
    "p99 ms",
    "CPU ms",
    f"p50 at {HIGHEST} %",
    f"p99 at {HIGHEST} %",
    "min-max",
    "ours / it, 1",
    f"ours / it, {BUSY}",
    "its p99 / ours",
)
TITLES = {
    "tiled": "{unit}: everybody with the same weights, peers with the usual tiled export",
    "factorised": "{unit}: peers with our graph, so only the servers differ",
}
WHAT = {
    READ: "request, user read from Redis",
    KEPT: "request, user kept from before",
    THREAD: "the same, ranked by a worker thread",
}
LONGEST = 200
"""Of an error in a table."""
Row = tuple[str | int | float, ...]


def add_phase(
    report: Report, unit: str, graph: str, seen: Mapping[str, Seen], failed: Mapping[str, str], rounds: int
) -> None:
    """Figures, table and curves of one network and one graph of the peers."""
    key = f"http.{unit}" if graph == "tiled" else f"http.{unit}.{graph}"
    ours = seen[OURS]
    rows = [_row(name, each, ours) for name, each in sorted(seen.items(), key=lambda pair: pair[0] != OURS)]
    title = TITLES[graph].format(unit=unit)
    report.tables.append(Table(f"{title}; medians of {rounds} rounds", COLUMNS, rows))
    if failed:
        errors: list[Row] = [
            (name, why if len(why) <= LONGEST else f"{why[:LONGEST]} ...") for name, why in failed.items()
        ]
        report.tables.append(Table(f"{unit}, {graph}: not measured", ("server", "why"), errors))
    for name, each in seen.items():
        one, busy = each.closed[1], each.closed[BUSY]
        report.figures |= {
            f"{key}.throughput.{name}": middle(busy.rates),
            f"{key}.p50_ms.{name}": middle(one.p50),
            f"{key}.p99_ms.{name}": middle(one.p99),
            f"{key}.cpu_ms.{name}": middle(busy.cpu_ms),
        }
        if name != OURS:
            report.figures |= {
                f"{key}.throughput_ratio.{name}": ratio(ours.closed[BUSY].rates, busy.rates),
                f"{key}.throughput_ratio_1.{name}": ratio(ours.closed[1].rates, one.rates),
            }
        if HIGHEST in each.open:
            _add_open(report, key, name, each, ours)
    best = [value for name, value in report.figures.items() if name.startswith(f"{key}.p99_ratio.")]
    if best:
        report.figures[f"{key}.p99_ratio.best"] = min(best)


def add_exchange(report: Report) -> None:
    """What it gives to replace a peer and the paper's network by us and the light one.

    From two parts of one run, so not paired by round; nothing when only one of the networks was measured.
    """
    ours = report.figures.get(f"http.light.throughput.{OURS}")
    prefix = "http.paper.throughput."
    theirs = {name.removeprefix(prefix): value for name, value in report.figures.items() if name.startswith(prefix)}
    if ours is not None:
        report.figures |= {f"http.light.over_paper_ratio.{n}": ours / v for n, v in theirs.items() if n != OURS}


def add_servers(report: Report, rows: list[Row]) -> None:
    """Who was measured: name, version, settings, memory."""
    report.tables.append(
        Table("Servers, all processes of each on one core", ("server", "version", "settings", "MB"), rows)
    )


def add_ceiling(report: Report, found: Mapping[int, tuple[float, float]]) -> None:
    """What the generator itself can do."""
    rows: list[Row] = [(connections, rate, latency) for connections, (rate, latency) in found.items()]
    title = "The load generator against a server that does nothing"
    report.tables.append(Table(title, ("connections", "req/s", "p50 ms"), rows))
    report.figures |= {f"http.ceiling.throughput_{connections}": rate for connections, (rate, _) in found.items()}


def add_overhead(report: Report, found: Overhead) -> None:
    """HTTP and Redis against scoring in process."""
    scoring = middle(found.scoring)
    rows: list[Row] = [("scoring in process", scoring, _range(found.scoring), 1.0, "", "")]
    for name, what in WHAT.items():
        times, rates = found.requests[name], found.rates[name]
        rows.append((what, middle(times), _range(times), found.ratio(name), middle(rates), _range(rates)))
    title = f"light: what a request costs beyond scoring; medians of {len(found.scoring)} rounds"
    report.tables.append(Table(title, ("what", "p50 ms", "min-max", "ratio", f"{BUSY} conn req/s", "min-max"), rows))
    report.figures |= {
        "http.light.turns_over_thread": ratio(found.rates[KEPT], found.rates[THREAD]),
        "http.light.overhead_ratio": found.ratio(READ),
        "http.light.overhead_kept_ratio": found.ratio(KEPT),
        "http.light.overhead_thread_ratio": found.ratio(THREAD),
        "http.light.scoring_ms": scoring,
        "http.light.redis_p50_ms": middle(found.requests[READ]),
    }


def shortened(why: str) -> str:
    """Its end says most."""
    return why if len(why) <= LONGEST else f"... {why[-LONGEST:]}"


def _row(name: str, each: Seen, ours: Seen) -> Row:
    one, busy = each.closed[1], each.closed[BUSY]
    row: Row = (name, middle(one.rates), middle(one.p50), middle(one.p99), middle(busy.rates), _range(busy.rates))
    row += (middle(busy.p50), middle(busy.p99), middle(busy.cpu_ms))
    loaded = each.open.get(HIGHEST)
    row += ("", "", "") if loaded is None else (middle(loaded.p50), middle(loaded.p99), _range(loaded.p99))
    row += (ratio(ours.closed[1].rates, one.rates), ratio(ours.closed[BUSY].rates, busy.rates))
    return (*row, "" if loaded is None else ratio(loaded.p99, ours.open[HIGHEST].p99))


def _add_open(report: Report, key: str, name: str, each: Seen, ours: Seen) -> None:
    loaded = each.open[HIGHEST]
    report.figures[f"{key}.p99_loaded_ms.{name}"] = middle(loaded.p99)
    if name != OURS:
        report.figures[f"{key}.p99_ratio.{name}"] = ratio(loaded.p99, ours.open[HIGHEST].p99)
    cells = list(each.open.values())
    report.series[f"{key}.rate.p50.{name}"] = [(middle(cell.rates), middle(cell.p50)) for cell in cells]
    report.series[f"{key}.rate.p99.{name}"] = [(middle(cell.rates), middle(cell.p99)) for cell in cells]


def _range(values: list[float]) -> str:
    return f"{min(values):.3g}-{max(values):.3g}"
