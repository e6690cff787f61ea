"""DIN of N candidates for one user: the usual export against ours, beside the floor."""

import argparse
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.floor import GemmRate
from benchmarks.operators import time_by_kind
from benchmarks.report import Report, Table
from benchmarks.tiled import export_tiled
from benchmarks.timing import Times, interleaved, p50, p99, spread
from benchmarks.work import HISTORY, UNITS, Candidates, make_din, make_request, multiply_adds, work_schema
from export.din_graph import DinServing
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from service.scorer import make_session

ADS = 20_000
CANDIDATES = (500, 1_000)
CURVE = (50, 100, 200, 500, 1_000, 2_000)
HISTORIES = (10, 20, 50, 100)
COLUMNS = ("unit", "candidates", "usual ms", "ours ms", "middle half", "p99", "floor ms", "speed-up", "ours / floor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""
    del parser


@dataclass(frozen=True, slots=True)
class Graphs:
    """One network, exported both ways."""

    ours: Any
    tiled: Any


def run(arguments: argparse.Namespace) -> Report:
    """`din.<unit>.n<N>.*`: `ours_ms`, `tiled_ms`, `speedup`, `floor_ratio`, `deviation`; `din.<unit>.products_ms`."""
    torch.set_num_threads(1)
    rounds = 15 if arguments.quick else 60
    report = Report("din")
    schema = work_schema(ADS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        gemm = GemmRate(folder)
        rows: list[tuple[str | int | float, ...]] = []
        for unit in UNITS:
            graphs = export_both(folder, unit)
            rows += [_compare(report, gemm, graphs, unit, make_request(schema, n), rounds) for n in CANDIDATES]
            _profile(report, folder / f"{unit}.onnx", unit, rounds)
            if not arguments.quick:
                _curves(report, graphs, unit, rounds // 2)
        report.tables.append(Table(f"DIN, {HISTORY} behaviours, p50 of {rounds} rounds", COLUMNS, rows))
    return report


def export_both(folder: Path, unit: str) -> Graphs:
    """Sessions, with the options the service uses, of the same weights exported plainly and as they are served."""
    din = make_din(work_schema(ADS), unit)
    inputs = common_inputs(din.schema) | candidate_inputs(din.schema)
    export_graph(DinServing(din), inputs, ["logits"], folder / f"{unit}.onnx")
    export_tiled(din, folder / f"{unit}-tiled.onnx")
    return Graphs(
        make_session(folder / f"{unit}.onnx", "cpu", 1), make_session(folder / f"{unit}-tiled.onnx", "cpu", 1)
    )


def _compare(
    report: Report, gemm: GemmRate, graphs: Graphs, unit: str, request: Candidates, rounds: int
) -> tuple[str | int | float, ...]:
    n = len(request.ads)
    feeds, tiled = request.feeds(), request.tiled()
    deviation = float(np.abs(graphs.ours.run(None, feeds)[0] - graphs.tiled.run(None, tiled)[0]).max())
    times = interleaved(
        {
            "tiled": partial(graphs.tiled.run, None, tiled),
            "gemm": gemm.run,
            "ours": partial(graphs.ours.run, None, feeds),
        },
        rounds,
    )
    ours, usual = p50(times["ours"]), p50(times["tiled"])
    floor = gemm.floor_ms(multiply_adds(unit, n), p50(times["gemm"]))
    key = f"din.{unit}.n{n}"
    report.figures |= {
        f"{key}.ours_ms": ours,
        f"{key}.tiled_ms": usual,
        f"{key}.speedup": float(np.median(times["tiled"] / times["ours"])),
        f"{key}.floor_ratio": ours / floor,
        f"{key}.deviation": deviation,
    }
    speedup = report.figures[f"{key}.speedup"]
    return unit, n, usual, ours, spread(times["ours"]), p99(times["ours"]), floor, speedup, ours / floor


def _profile(report: Report, graph: Path, unit: str, rounds: int) -> None:
    """What bounds it: `din.<unit>.products_ms`, and a table."""
    n = CANDIDATES[0]
    kinds = time_by_kind(graph, make_request(work_schema(ADS), n).feeds(), rounds)
    total = sum(ms for _, ms in kinds.values())
    rows: list[tuple[str | int | float, ...]] = [(kind, *found, found[1] / total) for kind, found in kinds.items()]
    rows.append(("all", sum(nodes for nodes, _ in kinds.values()), total, 1.0))
    report.figures[f"din.{unit}.products_ms"] = kinds["matrix products"][1]
    title = f"Where the time goes, {unit}, {n} candidates, by ONNX Runtime's profile"
    report.tables.append(Table(title, ("kind", "nodes", "ms", "share"), rows))


def _curves(report: Report, graphs: Graphs, unit: str, rounds: int) -> None:
    schema = work_schema(ADS)
    for axis, lengths in (("candidates", CURVE), ("history", HISTORIES)):
        points: dict[str, list[tuple[float, float]]] = {"ours": [], "usual": []}
        for length in lengths:
            n, history = (length, HISTORY) if axis == "candidates" else (500, length)
            request = make_request(schema, n, history=history)
            times: dict[str, Times] = interleaved(
                {
                    "ours": partial(graphs.ours.run, None, request.feeds()),
                    "usual": partial(graphs.tiled.run, None, request.tiled()),
                },
                rounds,
            )
            for name, each in times.items():
                points[name].append((length, p50(each)))
        report.series |= {f"din.{unit}.{axis}.{name}": line for name, line in points.items()}
