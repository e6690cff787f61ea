"""Further fine-rankers of a bundle: exported, proved and measured beside the full one, in falling cost."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from bundle.encoding import Float32, Int64
from bundle.golden import GoldenRow
from bundle.ladder import FULL, RESERVED, RungName, Worth, complaint
from bundle.manifest import GraphSpec, Rung
from bundle.precision import Asked
from export.certify import CANDIDATES, DISTINCT, in_turns
from export.parity import TOLERANCE, ParityError, common_of, feeds_of, gap, golden_requests, runner, sigmoid
from export.precision import settle
from export.recording import portable, tolerance
from export.request_graph import fixed_position, serving_graph
from export.stored_arena import with_given
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from export.weights import outline, size
from export.work import Work
from models.checkpoint import Checkpoint
from models.config import ConfigError
from models.data.batches import Batch
from models.data.prepared import PreparedData
from models.funnel import with_candidates
from models.labels import prefix_of
from models.networks.cost import cost_of_graph
from models.networks.network import Network
from models.numerics import processor

NAME: TypeAdapter[str] = TypeAdapter(RungName)
QUALITY = ("auc", "gauc", "logloss", "calibration", "ece")


class LadderError(ValueError):
    """Checkpoints that are no ladder; the rungs and the numbers are named."""


@dataclass(frozen=True, slots=True)
class Made:
    """A rung whose graph was written and proved, before it is known what it costs."""

    name: str
    checkpoint: Checkpoint
    network: Network
    graph: GraphSpec
    pctr: float
    """Largest difference from torch."""


def check_rungs(ladder: Mapping[str, Checkpoint], full: Checkpoint, data: PreparedData) -> None:
    """ConfigError or LadderError, before anything is computed, unless names and checkpoints can be rungs below
    `full`."""
    for name, checkpoint in ladder.items():
        try:
            NAME.validate_python(name)
        except ValidationError as error:
            raise LadderError(
                f"rung {name!r}: a name is a small letter, then at most 31 of a-z, 0-9, _ and -"
            ) from error
        if name in RESERVED:
            raise LadderError(f"a rung is called {name!r}; these names are taken: {', '.join(RESERVED)}")
        if checkpoint.data_fingerprint != data.prepared.fingerprint:
            raise ConfigError(
                f"rung {name!r}: {checkpoint.folder} was trained on data {checkpoint.data_fingerprint[:12]}, "
                f"{data.folder} is {data.prepared.fingerprint[:12]}: ids would not mean the same"
            )
        if (label := checkpoint.config.training.label) != full.config.training.label:
            raise LadderError(
                f"rung {name!r}: {checkpoint.folder} scores the label {label!r}, the fine-ranker "
                f"{full.config.training.label!r}"
            )
        checkpoint.network()
        checkpoint.calibration()
        checkpoint.certificate()


def make_rungs(
    ladder: Mapping[str, Checkpoint],
    data: PreparedData,
    chosen: list[tuple[Batch, Int64]],
    rows: list[GoldenRow],
    graphs: Path,
) -> tuple[list[Made], list[GoldenRow]]:
    """Write `graphs/finerank-NAME.onnx` of each rung and prove it on the golden requests, whose rows get its logits.

    ParityError when a graph does not compute what its network does.
    """
    made = []
    inputs = common_inputs(data.schema) | candidate_inputs(data.schema)
    for name, checkpoint in ladder.items():
        network = checkpoint.network()
        graph = export_graph(serving_graph(network), inputs, ["logits"], graphs / f"finerank-{name}.onnx")
        graph = with_given(graph, network)
        logits, pctr = _proved(name, network, graph, graphs, data, chosen)
        rows = [replace(row, ladder=row.ladder | {name: found}) for row, found in zip(rows, logits, strict=True)]
        made.append(Made(name, checkpoint, network, graph, pctr))
    return made, rows


def settle_rungs(
    made: list[Made], rows: list[GoldenRow], data: PreparedData, graphs: Path, asked: Asked, work: Work
) -> tuple[list[Made], list[GoldenRow]]:
    """The rungs in the precision asked for, and the rows with what those graphs give themselves."""
    feeds = [feeds_of(row.common, row.ads, data) for row in rows]
    settled = []
    for each in made:
        graph = settle(each.graph, graphs, asked, work)
        if graph.precision.is_reduced:
            found = portable(graph, graphs, feeds)
            rows = [replace(row, ladder=row.ladder | {each.name: one}) for row, (one,) in zip(rows, found, strict=True)]
        settled.append(replace(each, graph=graph))
    return settled, rows


def measured(
    full: Checkpoint, network: Network, graph: GraphSpec, made: list[Made], data: PreparedData, split: str, graphs: Path
) -> tuple[Worth | None, tuple[Rung, ...]]:
    """What the full fine-ranker and every rung cost, all of them taking turns on real requests of `split`, 500
    candidates each. LadderError when a rung is not cheaper than the one above it. None and nothing without rungs."""
    if not made:
        return None, ()
    whole = [(FULL, full, network, graph), *((each.name, each.checkpoint, each.network, each.graph) for each in made)]
    requests = golden_requests(data, split, DISTINCT, CANDIDATES, seed=0)
    feeds = [feeds_of(common_of(batch, data), ads, data) for batch, ads in requests]
    times = in_turns([runner(graphs, spec) for *_, spec in whole], feeds)
    worths = [
        worth_of(network, graphs / spec.file, ms, quality_of(checkpoint))
        for (_, checkpoint, network, spec), ms in zip(whole, times, strict=True)
    ]
    if wrong := complaint([(name, worth) for (name, *_), worth in zip(whole, worths, strict=True)]):
        raise LadderError(wrong)
    return worths[0], tuple(_rung(each, worth) for each, worth in zip(made, worths[1:], strict=True))


def logit_tolerance(full: GraphSpec, made: list[Made]) -> float:
    """The widest that a graph of them needs on another processor."""
    return max(tolerance(graph) for graph in (full, *(each.graph for each in made)))


def quality_of(checkpoint: Checkpoint) -> dict[str, float]:
    """Its metrics on the test split, as it was evaluated; empty for data without one."""
    start = f"{prefix_of(checkpoint.config)}test."
    return {name: checkpoint.metrics[f"{start}{name}"] for name in QUALITY if f"{start}{name}" in checkpoint.metrics}


def worth_of(network: Network, graph: Path, ms: list[float], quality: dict[str, float]) -> Worth:
    """Of a network whose graph took `ms` for requests of CANDIDATES."""
    cost = cost_of_graph(network)
    p50, p99 = np.quantile(ms, (0.5, 0.99))
    return Worth(
        multiply_adds=cost.candidate,
        request_multiply_adds=cost.request,
        bytes=size(outline(graph)),
        p50_ms=float(p50),
        p99_ms=float(p99),
        candidates=CANDIDATES,
        requests=len(ms),
        processor=processor(),
        quality=quality,
    )


def _rung(made: Made, worth: Worth) -> Rung:
    return Rung(
        name=made.name,
        model=made.checkpoint.config.model.kind,
        graph=made.graph,
        position=fixed_position(made.network),
        calibration=made.checkpoint.calibration(),
        certificate=made.checkpoint.certificate(),
        worth=worth,
    )


def _proved(
    name: str, network: Network, graph: GraphSpec, graphs: Path, data: PreparedData, chosen: list[tuple[Batch, Int64]]
) -> tuple[list[Float32], float]:
    """torch's logits of each golden request, after ONNX has been found equal; and the largest difference in pCTR."""
    run, logits, worst = runner(graphs, graph), [], 0.0
    for batch, ads in chosen:
        ids, numbers = torch.from_numpy(data.ads.fields[ads]).long(), torch.from_numpy(data.ads.numbers[ads])
        with torch.inference_mode():
            expected = network(with_candidates(batch, ids, numbers)).numpy()
        (found,) = run(feeds_of(common_of(batch, data), ads, data))
        worst = float(np.max([worst, gap(sigmoid(found), sigmoid(expected))]))  # a NaN stays
        logits.append(expected)
    if not worst <= TOLERANCE:
        raise ParityError(
            f"rung {name!r}: torch and ONNX differ by {worst:.3g} in pCTR (at most {TOLERANCE:g}) over "
            f"{len(logits)} requests"
        )
    return logits, worst
