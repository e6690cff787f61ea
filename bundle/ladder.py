"""What a fine-ranker of a ladder costs and is worth, as the export measured it beside the others; in the manifest."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field

from bundle.schema import Frozen

FULL = "full"
"""Name of the first rung, which is the stage's own fine-ranker."""
RESERVED = ("full", "auto", "off", "none", "prerank", "qscore")
"""No further rung is called so: values of the service's setting and of its answers."""
RungName = Annotated[str, Field(pattern="^[a-z][a-z0-9_-]{0,31}$")]


class Worth(Frozen):
    """Cost and quality of one rung."""

    multiply_adds: int = Field(ge=0)
    """For a candidate; models/networks/cost.py says what is counted."""
    request_multiply_adds: int = Field(ge=0)
    """Once a request."""
    bytes: int = Field(ge=0)
    """Of all weights of its graph."""
    p50_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    """Of its graph, `candidates` of a real request at once, one thread; the rungs took turns."""
    candidates: int = Field(gt=0)
    requests: int = Field(gt=0)
    """How often each graph ran."""
    processor: str
    quality: dict[str, float]
    """auc, gauc, logloss, calibration and so on, on the test split; empty for data without one."""

    def work(self) -> int:
        """Multiply-adds of a request of `candidates`."""
        return self.request_multiply_adds + self.candidates * self.multiply_adds


def complaint(rungs: Sequence[tuple[str, Worth]]) -> str | None:
    """Why these, in this order, are no ladder; None when they are one: every name once, every rung cheaper than the one
    above it, by arithmetic and as measured."""
    names = [name for name, _ in rungs]
    if taken := sorted(set(names[1:]) & set(RESERVED)):
        return f"a rung is called {taken[0]!r}; these names are taken: {', '.join(RESERVED)}"
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return f"two rungs are called {twice[0]!r}; every rung needs a name of its own"
    for (above, dear), (name, cheap) in pairwise(rungs):
        if cheap.candidates != dear.candidates:
            return f"rung {name!r} was measured with {cheap.candidates} candidates, {above!r} with {dear.candidates}"
        if cheap.work() >= dear.work():
            return (
                f"rung {name!r} is not cheaper than {above!r} above it: {cheap.work():,} multiply-adds for "
                f"{cheap.candidates} candidates, {above!r} needs {dear.work():,}"
            )
        if cheap.p50_ms >= dear.p50_ms:
            return (
                f"rung {name!r} is not faster than {above!r} above it: {cheap.p50_ms:.3f} ms for {cheap.candidates} "
                f"candidates, {above!r} takes {dear.p50_ms:.3f} ms"
            )
    return None


def table(rungs: Sequence[tuple[str, str, Worth]]) -> Iterator[str]:
    """For people: name, model and worth of each rung, best first."""
    if not rungs:
        return
    metrics = [name for name in ("auc", "gauc", "logloss", "calibration") if name in rungs[0][2].quality]
    head = "".join(f"{name:>13}" for name in metrics)
    yield f"ladder, {rungs[0][2].candidates} candidates of a request, and quality on the test split"
    yield f"  {'rung':<12} {'model':<12} {'multiply-adds':>14} {'MiB':>9} {'p50 ms':>9} {'p99 ms':>9}{head}"
    for name, model, worth in rungs:
        found = "".join(f"{worth.quality[m]:>13.5f}" if m in worth.quality else f"{'-':>13}" for m in metrics)
        yield (
            f"  {name:<12} {model:<12} {worth.work():>14,} {worth.bytes / 2**20:>9.2f} {worth.p50_ms:>9.3f} "
            f"{worth.p99_ms:>9.3f}{found}"
        )
