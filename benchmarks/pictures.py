"""The curves of saved benchmark figures as pictures for docs/performance.md and docs/models.md."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from benchmarks.report import Report, Table

Series = dict[str, list[tuple[float, float]]]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: the curves whose names begin with `prefix`."""

    file: str
    prefix: str
    title: str
    x: str
    from_zero: bool = False
    """Milliseconds begin at 0 instead of having a logarithmic scale."""
    bars: bool = False
    """Points are (start, duration) of stages instead."""
    y: str = "milliseconds"
    days: bool = False
    """Along x are days instead of sizes on a logarithmic scale."""
    linear: bool = False
    """Along y no logarithmic scale."""


PICTURES = (
    Picture("din-paper-candidates", "din.paper.candidates.", "DIN 80-40, 50 behaviours", "candidates"),
    Picture("din-light-candidates", "din.light.candidates.", "DIN 16-8, 50 behaviours", "candidates"),
    Picture("din-paper-history", "din.paper.history.", "DIN 80-40, 500 candidates", "behaviours"),
    Picture("din-light-history", "din.light.history.", "DIN 16-8, 500 candidates", "behaviours"),
    Picture("cascade-catalogue", "cascade.catalogue.", "The whole funnel", "ads in the catalogue", from_zero=True),
    Picture("cascade-waterfall", "cascade.waterfall.", "One request, stage by stage", "milliseconds", bars=True),
    Picture("http-paper-p50", "http.paper.rate.p50.", "80-40 over HTTP, median", "requests a second"),
    Picture("http-paper-p99", "http.paper.rate.p99.", "80-40 over HTTP, 99th percentile", "requests a second"),
    Picture("http-light-p50", "http.light.rate.p50.", "16-8 over HTTP, median", "requests a second"),
    Picture("http-light-p99", "http.light.rate.p99.", "16-8 over HTTP, 99th percentile", "requests a second"),
    Picture(
        "ladder-in-time",
        "ladder.in_time.",
        "Fine-ranked within the deadline",
        "load, 1: what the full rung sustains",
        y="share of all requests",
        days=True,
    ),
    Picture("daily-auc", "daily.auc.", "Each day by networks of the days before", "day", y="AUC", days=True),
    Picture("daily-seconds", "daily.seconds.", "What they cost", "day", y="seconds, processor time", days=True),
    Picture(
        "aa-false-alarms",
        "aa.alarms.",
        "Experiments without a difference that ever said one",
        "users so far, at 100 looks",
        from_zero=True,
        y="share of experiments",
    ),
    Picture("rows-start", "rows.start.", "Rows shared after training", "ids ÷ rows", y="AUC", linear=True),
    Picture("rows-scratch", "rows.scratch.", "Trained with shared rows", "ids ÷ rows", y="AUC", linear=True),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`FILE ...` and `--out DIR`."""
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="what --json of other benchmarks wrote")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"), metavar="DIR", help="[docs/pictures]")


def run(arguments: argparse.Namespace) -> Report:
    """Draw every picture whose curves are in the files. ValueError for a file without curves."""
    series: Series = {}
    for file in arguments.files:
        series |= curves(file)
    arguments.out.mkdir(parents=True, exist_ok=True)
    drawn = [(picture.file, len(lines)) for picture in PICTURES if (lines := _matching(series, picture.prefix))]
    for picture in PICTURES:
        if lines := _matching(series, picture.prefix):
            draw(picture, lines, arguments.out / f"{picture.file}.svg")
    report = Report("pictures")
    report.tables.append(Table(f"Drawn into {arguments.out}", ("picture", "curves"), list(drawn)))
    return report


def curves(file: Path) -> Series:
    """The curves that a benchmark saved."""
    saved: Any = json.loads(file.read_text())
    if not isinstance(saved, dict) or "series" not in saved:
        raise ValueError(f"{file}: no figures of `adrank bench ... --json FILE`")
    return {name: [(x, y) for x, y in points] for name, points in saved["series"].items()}


def draw(picture: Picture, lines: Series, path: Path) -> None:
    """Write one picture as SVG, the same bytes for the same curves."""
    mpl.rcParams["svg.hashsalt"] = picture.file
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    if picture.bars:
        for place, points in enumerate(lines.values()):
            for start, duration in points:
                axes.barh(place, duration, left=start, color="tab:blue")
                axes.annotate(f" {duration:.2f}", (start + duration, place), va="center", fontsize=8)
        axes.set_yticks(range(len(lines)), list(lines))
        axes.invert_yaxis()
        axes.margins(x=0.12)
    else:
        for name, points in lines.items():
            ordered = sorted(points)
            axes.plot([x for x, _ in ordered], [y for _, y in ordered], marker="o", markersize=3, label=name)
        axes.set_ylabel(picture.y)
        if picture.days:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        else:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:,.0f}")
            axes.xaxis.set_minor_formatter("")
        if picture.from_zero:
            axes.set_ylim(0, 1.1 * max(y for points in lines.values() for _, y in points))
        elif not (picture.days or picture.linear):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        axes.legend(fontsize=8)
        axes.grid(visible=True, which="both", alpha=0.2)
    axes.set_title(picture.title)
    axes.set_xlabel(picture.x)
    figure.savefig(path, metadata={"Date": None})


def _matching(series: Series, prefix: str) -> Series:
    return dict(_stripped(series, prefix))


def _stripped(series: Series, prefix: str) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    for name, points in series.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), points
