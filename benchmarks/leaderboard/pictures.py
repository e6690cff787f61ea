"""The leaderboard's two pictures, drawn from its figures."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.leaderboard.naming import name_points
from benchmarks.leaderboard.page import TITLES, Figures, ordered, picture_names


def draw(figures: Figures, dataset: str, reference: str, folder: Path) -> None:
    """Write both as SVG into `folder`, the same bytes for the same figures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in zip(
        picture_names(dataset), (_differences(figures, dataset, reference), _times(figures, dataset)), strict=True
    ):
        mpl.rcParams["svg.hashsalt"] = name
        figure.savefig(folder / name, metadata={"Date": None})


def _differences(figures: Figures, dataset: str, reference: str) -> Figure:
    """GAUC minus the reference's, with the paired interval; the best at the top."""
    models = [model for model in ordered(figures, dataset) if f"{dataset}.{model}.dgauc" in figures]
    models.sort(key=lambda model: figures[f"{dataset}.{model}.dgauc"])
    figure = Figure(figsize=(6.4, 1.4 + 0.3 * len(models)), layout="constrained")
    axes = figure.subplots()
    for place, model in enumerate(models):
        value, low, high = (figures[f"{dataset}.{model}.dgauc{end}"] for end in ("", "_low", "_high"))
        axes.plot([low, high], [place, place], color="tab:blue")
        axes.plot(value, place, marker="o", markersize=4, color="tab:blue")
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(models)), models)
    axes.grid(visible=True, axis="x", alpha=0.2)
    axes.set_xlabel(f"GAUC minus that of {reference}, 95 % interval")
    axes.set_title(TITLES[dataset])
    return figure


def _times(figures: Figures, dataset: str) -> Figure:
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    points = []
    for model in ordered(figures, dataset):
        if (ms := figures.get(f"{dataset}.{model}.ms_500")) is not None:
            auc = figures[f"{dataset}.{model}.auc"]
            axes.plot(ms, auc, marker="o", markersize=4, color="tab:blue")
            points.append((model, ms, auc))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2, y=0.1)
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.set_xlabel("milliseconds for 500 candidates, one thread")
    axes.set_ylabel("AUC")
    axes.set_title(TITLES[dataset])
    name_points(axes, points)
    return figure
