"""A compressed network and its original, measured side by side -> the certificate of a bundle."""

import datetime
import hashlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bundle.certificate import Certificate, Difference, Measurements
from export.parity import Feeds, Run, common_of, feeds_of, golden_requests, runner
from export.request_graph import serving_graph
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from export.weights import outline, size
from models.checkpoint import Checkpoint, digest
from models.compression.pipeline import Compressed
from models.compression.sizes import sizes_of
from models.compression.subject import Subject
from models.data.prepared import PreparedData
from models.evaluation import Scored, network_scorer, score_split
from models.intervals import METRICS, bootstrap
from models.metrics import summary
from models.numerics import processor

CANDIDATES = 500
REQUESTS = 200
WARM = 20
"""Runs that do not count."""
DISTINCT = 32
"""Different requests, over and over again."""


def certify(found: Compressed, checkpoint: Checkpoint, original: Checkpoint, data: PreparedData) -> Certificate:
    """Measure both on the test split, and their graphs on real requests of it. DataError without a test split."""
    scored = [score_split(network_scorer(each.network), data, "test") for each in (found.original, found.subject)]
    first = scored[0]
    drawn = bootstrap(first.labels, first.users, [each.scores for each in scored])
    differences = {metric: drawn.difference(metric, [1], [0]) for metric in METRICS}
    with tempfile.TemporaryDirectory() as temporary:
        graphs = [Path(temporary) / name for name in ("original", "compressed")]
        opened = [_opened(each, folder) for each, folder in zip((found.original, found.subject), graphs, strict=True)]
        times = in_turns([run for run, _ in opened], _requests(data, "test"))
    before, after = (
        _measured(subject, scores, bytes_, ms)
        for subject, scores, (_, bytes_), ms in zip((found.original, found.subject), scored, opened, times, strict=True)
    )
    return Certificate(
        original=original.folder.name,
        original_weights=found.record.original_weights,
        weights=digest(checkpoint.folder / "best.pt"),
        original_seed=original.seed,
        seed=checkpoint.seed,
        recipe=found.record.recipe.name,
        steps=tuple(each.what for each in found.record.steps[1:]),
        teachers=found.record.teachers,
        split="test",
        rows=rows_of(first),
        impressions=len(first.labels),
        differences={
            name: Difference(value=each.value, low=each.low, high=each.high) for name, each in differences.items()
        },
        before=before,
        after=after,
        candidates=CANDIDATES,
        requests=REQUESTS,
        processor=processor(),
        made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def rows_of(scored: Scored) -> str:
    """SHA-256 of a split's impressions: users int64, catalogue rows int32, labels float32, in their order."""
    found = hashlib.sha256()
    for array in (scored.users, scored.rows, scored.labels):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def median_ms(subjects: Sequence[Subject], data: PreparedData, split: str) -> list[float]:
    """p50 of the graphs of some networks for CANDIDATES of a request, all taking turns."""
    with tempfile.TemporaryDirectory() as temporary:
        opened = [_opened(each, Path(temporary) / str(i)) for i, each in enumerate(subjects)]
        return [float(np.median(ms)) for ms in in_turns([run for run, _ in opened], _requests(data, split))]


def in_turns(runs: Sequence[Run], requests: Sequence[Feeds]) -> list[list[float]]:
    """Milliseconds of each run of each graph, REQUESTS times; who goes first changes from request to request."""
    times: list[list[float]] = [[] for _ in runs]
    for i in range(-WARM, REQUESTS):
        feeds = requests[i % len(requests)]
        for place in range(len(runs)):
            which = (place + i) % len(runs)
            started = time.perf_counter()
            runs[which](feeds)
            if i >= 0:
                times[which].append((time.perf_counter() - started) * 1e3)
    return times


def _opened(subject: Subject, folder: Path) -> tuple[Run, int]:
    """Its graph as a function, and the bytes of its weights."""
    folder.mkdir()
    schema = subject.network.schema
    inputs = common_inputs(schema) | candidate_inputs(schema)
    spec = export_graph(serving_graph(subject.network), inputs, ["logits"], folder / "finerank.onnx")
    return runner(folder, spec), size(outline(folder / spec.file))


def _requests(data: PreparedData, split: str) -> list[Feeds]:
    chosen = golden_requests(data, split, DISTINCT, CANDIDATES, seed=0)
    return [feeds_of(common_of(batch, data), ads, data) for batch, ads in chosen]


def _measured(subject: Subject, scored: Scored, bytes_: int, ms: list[float]) -> Measurements:
    sizes = sizes_of(subject.network)
    p50, p99 = np.quantile(ms, (0.5, 0.99))
    return Measurements(
        quality=summary(scored.labels, scored.scores, scored.users),
        bytes=bytes_,
        parameters=sizes.parameters,
        multiply_adds=sizes.candidate,
        p50_ms=float(p50),
        p99_ms=float(p99),
    )
