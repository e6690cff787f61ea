"""How long 500 candidates take as they are served: each network's graph in the fine-ranker's place."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.leaderboard.runs import SPLIT, Run
from benchmarks.timing import interleaved, p50
from export.parity import Feeds, common_of, feeds_of, golden_requests
from export.request_graph import serving_graph
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from models.networks.config import QscoreConfig
from service.scorer import make_session

CANDIDATES = 500
REQUESTS = 8
"""Real ones of the test split: histories are as long as they are."""


def milliseconds(runs: dict[str, list[Run]], folder: Path, rounds: int, say: Callable[[str], None]) -> dict[str, float]:
    """Model -> median milliseconds a request of 500 candidates, ONNX Runtime on one thread, models taking turns.

    Tables (Qscore) have no graph and are left out. `folder` takes the graphs.
    """
    work: dict[str, Callable[[], object]] = {}
    for model, own in runs.items():
        if isinstance(own[0].checkpoint.config.model, QscoreConfig):
            continue
        say(f"exporting {own[0].checkpoint.config.name}")
        work[model] = _served(own[0], folder / model)
    return {model: p50(times) / REQUESTS for model, times in interleaved(work, rounds).items()}


def _served(run: Run, folder: Path) -> Callable[[], object]:
    """A call that scores all of the requests."""
    folder.mkdir()
    schema = run.data.schema
    inputs = common_inputs(schema) | candidate_inputs(schema)
    spec = export_graph(serving_graph(run.checkpoint.network()), inputs, ["logits"], folder / "finerank.onnx")
    session = make_session(folder / spec.file, "cpu", 1)
    names = [each.name for each in spec.inputs]
    requests: list[Feeds] = []
    for batch, rows in golden_requests(run.data, SPLIT, REQUESTS, CANDIDATES, seed=0):
        feeds = feeds_of(common_of(batch, run.data), rows, run.data)
        requests.append({name: feeds[name] for name in names})
    return partial(_score_all, session.run, requests)


def _score_all(run: Callable[[None, Feeds], object], requests: list[Feeds]) -> None:
    for feeds in requests:
        run(None, feeds)
