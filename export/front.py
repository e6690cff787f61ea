"""What a search for a recipe found: the candidates that no other beats, as a table, as figures and as a picture."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from export.certify import CANDIDATES, median_ms
from models.compression.search import Candidate, front
from models.compression.target import Target
from models.data.prepared import PreparedData


@dataclass(frozen=True, slots=True)
class Front:
    """Candidates of the front by falling GAUC, and milliseconds."""

    candidates: tuple[Candidate, ...]
    ms: tuple[float, ...]
    """p50 of each one's graph."""
    original_ms: float

    def lines(self, target: Target) -> list[str]:
        """A row each."""
        lines = [f"  original: {self.original_ms:.2f} ms for {CANDIDATES} candidates"]
        heads = ("bytes", "macs", "ms", "ΔAUC valid", "ΔGAUC valid")
        lines.append("  " + "candidate".ljust(22) + "".join(head.rjust(13) for head in heads))
        for each, ms in zip(self.candidates, self.ms, strict=True):
            found = each.figures
            cells = [f"{value:.3f}" for value in (found["bytes"], found["macs"], ms)]
            cells += [f"{value:+.4f}" for value in (found["dauc"], found["dgauc"])]
            reached = "" if target.missed(found) else "  reaches the target"
            lines.append("  " + each.name.ljust(22) + "".join(cell.rjust(13) for cell in cells) + reached)
        return lines

    def write(self, folder: Path) -> None:
        """front.json and front.svg."""
        rows = [
            {"name": each.name, "recipe": each.found.record.recipe.model_dump(mode="json"), "p50_ms": ms} | each.figures
            for each, ms in zip(self.candidates, self.ms, strict=True)
        ]
        content = {"original_p50_ms": self.original_ms, "candidates": rows}
        (folder / "front.json").write_text(json.dumps(content, indent=1) + "\n")
        mpl.rcParams["svg.hashsalt"] = "front"
        self._picture().savefig(folder / "front.svg", metadata={"Date": None})

    def _picture(self) -> Figure:
        figure = Figure(figsize=(9.0, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        sizes = [each.figures["bytes"] for each in self.candidates]
        for axes, found, whole, said in (
            (left, sizes, 1.0, "bytes, of the original's"),
            (right, self.ms, self.original_ms, f"ms for {CANDIDATES} candidates, p50, one thread"),
        ):
            for each, x in zip(self.candidates, found, strict=True):
                axes.plot(x, each.figures["dgauc"], marker="o", markersize=5, color="tab:blue")
            axes.plot(whole, 0.0, marker="s", markersize=6, color="black", label="original")
            axes.axhline(0.0, color="black", linewidth=0.8)
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
            axes.set_xlabel(said)
            axes.grid(visible=True, which="both", alpha=0.2)
            axes.legend(fontsize=8)
        left.set_ylabel("GAUC minus the original's, validation")
        return figure


def measure(candidates: Sequence[Candidate], data: PreparedData) -> Front:
    """The front of some candidates of one original, with times on requests of the validation split."""
    kept = sorted(front(list(candidates)), key=lambda each: -each.figures["dgauc"])
    original_ms, *ms = median_ms([kept[0].found.original, *(each.found.subject for each in kept)], data, "valid")
    return Front(tuple(kept), tuple(ms), original_ms)
