"""Proof that the ONNX graphs compute what the torch models do, on real requests. An export proves itself or fails."""

import bundle.no_telemetry  # noqa: F401

# isort: split
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch

from bundle.encoding import Float32, Int64
from bundle.golden import Common, GoldenRow
from bundle.manifest import GraphSpec
from bundle.schema import FIRST_KNOWN
from models.data.batches import Batch, batches
from models.data.prepared import PreparedData
from models.funnel import with_candidates
from models.networks.network import Network, TwoTower

TOLERANCE = 1e-5
"""Largest |difference| of a pCTR between torch and ONNX on the machine that exports."""
GOLDEN_TOLERANCE = 1e-4
"""Allowed on another processor, whose kernels add up in another order; of a logit or a query component."""


Feeds = dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float32]]
Run = Callable[[Feeds], list[Float32]]
"""A graph: named inputs -> its outputs, in order. Inputs it does not have are left out."""


class ParityError(Exception):
    """A graph differs from its torch model by more than the tolerance."""


@dataclass(frozen=True, slots=True)
class Parity:
    """What was compared and the largest differences."""

    requests: int
    candidates: int
    pctr: float
    query: float


def golden_requests(
    data: PreparedData, split: str, requests: int, candidates: int, seed: int
) -> list[tuple[Batch, Int64]]:
    """Real requests of a split, each with random catalogue rows as candidates; the unknown ad is among them."""
    random = np.random.default_rng(seed)
    chosen: list[tuple[Batch, Int64]] = []
    for batch in batches(data, split, 1, seed):
        rows = random.integers(FIRST_KNOWN, max(len(data.ads.fields), FIRST_KNOWN + 1), candidates)
        rows = np.minimum(rows, len(data.ads.fields) - 1)
        rows[-1] = FIRST_KNOWN - 1
        chosen.append((batch, rows))
        if len(chosen) == requests:
            break
    return chosen


def prove(
    prerank: TwoTower,
    network: Network,
    query: GraphSpec,
    finerank: GraphSpec,
    folder: Path,
    data: PreparedData,
    chosen: list[tuple[Batch, Int64]],
) -> tuple[list[GoldenRow], Parity]:
    """Golden rows with torch's outputs, after ONNX has been found equal on each of them. ParityError otherwise."""
    run_query, run_finerank = runner(folder, query), runner(folder, finerank)
    rows: list[GoldenRow] = []
    worst_pctr = worst_query = 0.0
    for batch, ads in chosen:
        common = common_of(batch, data)
        vector, offset, logits = _torch(prerank, network, batch, ads, data)
        feeds = feeds_of(common, ads, data)
        found_vector, found_offset = run_query(feeds)
        (found_logits,) = run_finerank(feeds)
        # Not Python's max, which would drop a NaN.
        worst_pctr = float(np.max([worst_pctr, gap(sigmoid(found_logits), sigmoid(logits))]))
        worst_query = float(np.max([worst_query, gap(found_vector, vector), gap(found_offset, np.float32(offset))]))
        rows.append(GoldenRow(common, ads, vector, offset, logits))
    if not (worst_pctr <= TOLERANCE and worst_query <= GOLDEN_TOLERANCE):
        raise ParityError(
            f"torch and ONNX differ by {worst_pctr:.3g} in pCTR (at most {TOLERANCE:g}) and {worst_query:.3g} in query "
            f"vectors (at most {GOLDEN_TOLERANCE:g}) over {len(rows)} requests"
        )
    return rows, Parity(len(rows), sum(len(row.ads) for row in rows), worst_pctr, worst_query)


def feeds_of(common: Common, ads: Int64, data: PreparedData) -> Feeds:
    """Every input that a graph may have."""
    return common.feeds() | {"ads": data.ads.fields[ads].astype(np.int64), "ad_numbers": data.ads.numbers[ads]}


def common_of(batch: Batch, data: PreparedData) -> Common:
    """The common features of a batch of one request; histories padded to their full length, so that rows stack."""
    histories = {}
    for history in data.schema.histories:
        ids = batch.histories[history.name][0].numpy()
        histories[history.name] = np.pad(ids, ((0, history.max_length - len(ids)), (0, 0)))
    return Common(
        batch.user[0].numpy(),
        batch.user_numbers[0].numpy(),
        batch.context[0].numpy(),
        batch.context_numbers[0].numpy(),
        histories,
    )


def _torch(
    prerank: TwoTower, network: Network, batch: Batch, ads: Int64, data: PreparedData
) -> tuple[Float32, float, Float32]:
    """What the trained models say: query vector, offset, logits [N]."""
    ids, numbers = torch.from_numpy(data.ads.fields[ads]).long(), torch.from_numpy(data.ads.numbers[ads])
    with torch.inference_mode():
        vector, offset = prerank.query(batch)
        logits = network(with_candidates(batch, ids, numbers))
    return vector[0].numpy(), float(offset[0]), logits.numpy()


def runner(folder: Path, graph: GraphSpec, *, optimised: bool = True) -> Run:
    """The graph as a function, on one thread. `optimised=False`: as written, an int8 product in float kernels."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(folder / graph.file), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in graph.inputs]

    def run(feeds: Feeds) -> list[Float32]:
        found: list[Float32] = session.run(None, {name: feeds[name] for name in names})
        return found

    return run


def gap(found: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Largest |difference|; NaN when one of them is not finite."""
    with np.errstate(invalid="ignore"):
        return float(np.max(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)), initial=0.0))


def sigmoid(x: Float32) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-x)) in double precision."""
    return 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64)))
