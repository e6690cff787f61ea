"""Reliability curves: how often ads were clicked that were given a probability."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bundle.calibration import Calibration
from models.calibration import calibrated
from models.evaluation import Scored
from models.metrics import Float64

BINS = 20


def reliability(labels: npt.ArrayLike, scores: npt.ArrayLike, bins: int = BINS) -> tuple[Float64, Float64]:
    """Mean probability and share of clicks in bins of equal mass, by rising probability: at most [bins] each."""
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    pieces = np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))
    return np.array([p[piece].mean() for piece in pieces]), np.array([y[piece].mean() for piece in pieces])


def draw(splits: Mapping[str, Scored], calibration: Calibration, name: str, path: Path) -> None:
    """One panel a split, before and after; the same bytes for the same scores."""
    mpl.rcParams["svg.hashsalt"] = name
    figure = Figure(figsize=(4.2 * len(splits), 4.0), layout="constrained")
    for axes, (split, scored) in zip(figure.subplots(1, len(splits), squeeze=False)[0], splits.items(), strict=True):
        for when, scores in (("before", scored.scores), ("after", calibrated(calibration, scored.scores))):
            predicted, clicked = reliability(scored.labels, scores)
            axes.plot(predicted, clicked, marker="o", markersize=3, label=f"{when} {calibration.method}")
        top = max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([0, top], [0, top], color="black", linewidth=0.8)
        axes.set_title(f"{name}, {split}")
        axes.set_xlabel("predicted")
        axes.set_ylabel("clicked")
        axes.legend(fontsize=8)
        axes.grid(visible=True, alpha=0.2)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
