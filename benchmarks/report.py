"""What a benchmark says: flat figures for machines, tables for people, and where it was measured."""

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from models.numerics import processor

LIBRARIES = ("numpy", "onnxruntime", "onnxruntime-gpu", "torch", "faiss-cpu", "fastapi", "uvicorn", "redis")


@dataclass(frozen=True, slots=True)
class Table:
    """One table: a title, column heads, rows of ready text or numbers (floats are shown with three digits)."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str | int | float, ...]]

    def lines(self) -> list[str]:
        """As Markdown."""
        cells = [list(map(_shown, row)) for row in self.rows]
        widths = [max(len(row[i]) for row in [list(self.columns), *cells]) for i in range(len(self.columns))]
        return [
            f"### {self.title}",
            "",
            _line(self.columns, widths),
            _line(["-" * width for width in widths], widths),
            *(_line(row, widths) for row in cells),
            "",
        ]


@dataclass(slots=True)
class Report:
    """The outcome of one benchmark."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    """Flat, stable keys such as `din.light.n500.speedup`."""
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Curves for pictures: name -> points (x, y)."""

    def add(self, other: "Report") -> None:
        """Take over another report's contents. ValueError when both give the same figure."""
        if twice := sorted(set(self.figures) & set(other.figures)):
            raise ValueError(f"two benchmarks give the same figures: {twice}")
        self.figures |= other.figures
        self.tables += other.tables
        self.notes += other.notes
        self.series |= other.series

    def text(self, where: dict[str, str]) -> str:
        """The whole of it as Markdown."""
        lines = [f"## {self.name}", "", *(f"{name}: {value}  " for name, value in where.items()), ""]
        for table in self.tables:
            lines += table.lines()
        lines += [*self.notes, ""] if self.notes else []
        return "\n".join([*lines, *(f"{name} = {_shown(value)}" for name, value in sorted(self.figures.items()))])

    def save(self, path: Path, where: dict[str, str]) -> None:
        """Write figures, tables and series as JSON."""
        tables = [{"title": each.title, "columns": each.columns, "rows": each.rows} for each in self.tables]
        whole = {"name": self.name, "where": where, "figures": self.figures, "tables": tables}
        path.write_text(json.dumps(whole | {"series": self.series, "notes": self.notes}, indent=2) + "\n")


def where() -> dict[str, str]:
    """Machine, load, threads and versions, which stand beside every table."""
    return {
        "machine": f"{processor()}, {os.cpu_count()} cores, {_memory_gb():.0f} GB, {platform.system()}",
        "load at start": f"{os.getloadavg()[0]:.2f}",
        "threads": "1 for every measured computation",
        "python": platform.python_version(),
        "versions": ", ".join(f"{name} {found}" for name in LIBRARIES if (found := _version(name))),
        "commit": _commit(),
    }


def _shown(value: str | int | float) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return value if isinstance(value, str) else f"{value:,}"


def _line(cells: Sequence[str], widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    folder = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
