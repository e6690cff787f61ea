"""Golden rows of a bundle whose graphs are of reduced precision: what they give themselves, on any processor."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from bundle.encoding import Float32
from bundle.golden import GoldenRow
from bundle.manifest import GraphSpec
from export.half import in_half
from export.parity import GOLDEN_TOLERANCE, Feeds, ParityError, feeds_of, gap, runner
from models.data.prepared import PreparedData

REDUCED_TOLERANCE = 0.02
"""How far an output of a graph that computes in int8 or fp16 may be off on another processor; fp32: GOLDEN_TOLERANCE.

int8: a value that lies between two steps may fall to either side. The same codes multiplied in floats instead of
integers moved 64,000 logits by 5e-7 on average and one of them by 0.007. It is there to find
processors whose integer products overflow. fp16: every value rounded to fp16, as on a GPU, moved logits by 0.002.
"""


def tolerance(graph: GraphSpec) -> float:
    """How far a golden output of the graph may be off on another processor."""
    return GOLDEN_TOLERANCE if graph.precision.dense == "fp32" else REDUCED_TOLERANCE


def recorded(
    rows: list[GoldenRow], query: GraphSpec, finerank: GraphSpec, folder: Path, data: PreparedData
) -> list[GoldenRow]:
    """The same requests with what the graphs of reduced precision give for them; of an fp32 graph torch's outputs stay.

    ParityError when such a graph gives something else as soon as it is computed in another way: another processor would
    refuse the bundle.
    """
    feeds = [feeds_of(row.common, row.ads, data) for row in rows]
    if query.precision.is_reduced:
        found = portable(query, folder, feeds)
        rows = [replace(row, query=q, offset=float(o)) for row, (q, o) in zip(rows, found, strict=True)]
    if finerank.precision.is_reduced:
        found = portable(finerank, folder, feeds)
        rows = [replace(row, logits=logits) for row, (logits,) in zip(rows, found, strict=True)]
    return rows


def portable(graph: GraphSpec, folder: Path, feeds: list[Feeds]) -> list[list[Float32]]:
    """The graph's outputs for each request, once another way to compute them has given the same."""
    is_half = graph.precision.dense == "fp16"
    run, other = runner(folder, graph), in_half(folder, graph) if is_half else runner(folder, graph, optimised=False)
    found = [run(each) for each in feeds]
    gaps = [gap(a, b) for one, each in zip(found, feeds, strict=True) for a, b in zip(one, other(each), strict=True)]
    if not (worst := float(np.max(gaps))) <= tolerance(graph):
        raise ParityError(
            f"{graph.file}: computed in another way an output changes by {worst:.3g}, at most {tolerance(graph):g} is "
            "allowed"
        )
    return found
