"""Figures and tables follow from what was measured."""

import pytest

from benchmarks.http.overhead import KEPT, READ, THREAD, Overhead
from benchmarks.http.rounds import Cell, Seen
from benchmarks.http.tables import COLUMNS, LONGEST, add_ceiling, add_exchange, add_overhead, add_phase, shortened
from benchmarks.report import Report


def cell(rates: list[float], ms: float) -> Cell:
    return Cell(rates, [ms] * len(rates), [2 * ms] * len(rates), [ms / 2] * len(rates))


def seen(scale: float) -> Seen:
    """A server `scale` times as slow as the first; in the second round the machine has half its speed."""
    return Seen(
        closed={n: cell([100 * n / scale, 50 * n / scale, 100 * n / scale], scale) for n in (1, 4)},
        open={share: cell([share / scale, share / scale / 2, share / scale], scale * share) for share in (20, 80)},
    )


def phase(graph: str = "tiled") -> Report:
    report = Report("http")
    add_phase(report, "light", graph, {"adrank": seen(1), "ray": seen(8), "triton": seen(4)}, {"bentoml": "no"}, 3)
    return report


def test_ratios_are_ours_over_theirs() -> None:
    figures = phase().figures
    assert figures["http.light.throughput_ratio.ray"] == pytest.approx(8)
    assert figures["http.light.throughput_ratio_1.triton"] == pytest.approx(4)
    assert figures["http.light.p99_ratio.ray"] == pytest.approx(8)
    assert figures["http.light.p99_ratio.best"] == figures["http.light.p99_ratio.triton"] == pytest.approx(4)
    assert figures["http.light.throughput.adrank"] == pytest.approx(400)
    assert figures["http.light.p50_ms.ray"] == pytest.approx(8)
    assert figures["http.light.p99_loaded_ms.adrank"] == pytest.approx(160)
    assert figures["http.light.cpu_ms.triton"] == pytest.approx(2)
    assert not any(name.endswith("ratio.adrank") for name in figures)


def test_the_light_network_is_compared_with_the_papers_when_both_were_measured() -> None:
    report = phase()
    add_exchange(report)
    assert not any("over_paper" in name for name in report.figures)
    add_phase(report, "paper", "tiled", {"adrank": seen(4), "ray": seen(20)}, {}, 3)
    add_exchange(report)
    assert report.figures["http.light.over_paper_ratio.ray"] == pytest.approx(20)
    assert "http.light.over_paper_ratio.adrank" not in report.figures


def test_our_graph_in_the_peers_has_figures_of_its_own() -> None:
    figures = phase("factorised").figures
    assert figures["http.light.factorised.throughput_ratio.ray"] == pytest.approx(8)
    assert all(name.startswith("http.light.factorised.") for name in figures)


def test_every_server_has_a_row_or_a_reason() -> None:
    measured, missing = phase().tables
    assert [row[0] for row in measured.rows] == ["adrank", "ray", "triton"]
    assert {len(row) for row in measured.rows} == {len(COLUMNS)}
    assert missing.rows == [("bentoml", "no")]
    assert "\n".join(line for table in phase().tables for line in table.lines())


def test_curves_are_latency_by_arrival_rate() -> None:
    series = phase().series
    assert series["http.light.rate.p99.adrank"] == [(20, 40), (80, 160)]
    assert series["http.light.rate.p50.ray"] == [(2.5, 160), (10, 640)]


def test_a_long_error_keeps_its_end() -> None:
    assert shortened("short") == "short"
    assert shortened("x" * 1000 + "the reason").endswith("the reason")
    assert len(shortened("x" * 1000)) < LONGEST + 10


def test_the_overhead_is_paired_by_round() -> None:
    report = Report("http")
    requests = {READ: [1.5, 3.0, 6.0], KEPT: [1.2, 2.4, 4.8], THREAD: [1.3, 2.6, 5.2]}
    rates = {READ: [9.0] * 3, KEPT: [12.0, 12.0, 15.0], THREAD: [10.0, 8.0, 10.0]}
    add_overhead(report, Overhead([1.0, 2.0, 4.0], requests, rates))
    assert report.figures["http.light.overhead_ratio"] == pytest.approx(1.5)
    assert report.figures["http.light.overhead_kept_ratio"] == pytest.approx(1.2)
    assert report.figures["http.light.overhead_thread_ratio"] == pytest.approx(1.3)
    assert report.figures["http.light.turns_over_thread"] == pytest.approx(1.5)
    assert report.figures["http.light.scoring_ms"] == 2.0


def test_the_ceiling_is_stated() -> None:
    report = Report("http")
    add_ceiling(report, {1: (12_000.0, 0.04), 4: (30_000.0, 0.07)})
    assert report.figures == {"http.ceiling.throughput_1": 12_000.0, "http.ceiling.throughput_4": 30_000.0}
