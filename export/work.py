"""The real requests on which the precision of a graph is decided."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bundle.encoding import Float32
from export.parity import Feeds, common_of, feeds_of, golden_requests
from models.data.prepared import PreparedData

CALIBRATION, JUDGED = 32, 64
"""Requests whose values set the ranges of int8, and others on which the outcome is judged and timed."""


@dataclass(frozen=True, slots=True)
class Work:
    """Requests for one graph, histories at their full length, and what it says of their candidates."""

    calibration: Sequence[Feeds]
    judged: Sequence[Feeds]
    logits: Callable[[int, list[Float32]], Float32]
    """Number of a judged request and the graph's outputs -> logits of its candidates."""


def works(data: PreparedData, split: str, candidates: int, vectors: Float32, seed: int) -> tuple[Work, Work]:
    """For the query graph, whose logits are those of the ads with these vectors, and for the fine-ranker's.

    Data with fewer requests than it takes gives what it has, a third for calibration; a single one serves for both.
    """
    chosen = golden_requests(data, split, CALIBRATION + JUDGED, candidates, seed)
    feeds = [feeds_of(common_of(batch, data), ads, data) for batch, ads in chosen]
    cut = min(CALIBRATION, len(feeds) // 3)
    calibration, judged = feeds[:cut] or feeds, feeds[cut:]
    ads = [rows for _, rows in chosen][cut:]
    return (
        Work(calibration, judged, lambda i, outputs: vectors[ads[i]] @ outputs[0] + outputs[1]),
        Work(calibration, judged, lambda _, outputs: outputs[0]),
    )
