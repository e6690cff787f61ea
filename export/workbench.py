"""Where other forms of a graph are tried: each is written, run on real requests and held against the fp32 graph."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bundle.encoding import Float32
from bundle.manifest import GraphSpec
from bundle.precision import Deviation
from export.dense import Ranges, with_ranges
from export.deviation import deviation
from export.half import in_half
from export.pairs import Paired
from export.parity import Feeds, Run, runner
from export.weights import Model, outline, save_graph, save_outline, size
from export.work import Work

ROUNDED = 8
"""Requests on which fp16 is judged: value by value, a second each."""
Timer = Callable[[Run, Run, Sequence[Feeds]], Paired]
"""`compare` of export/pairs.py: the old way, the new way, requests."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A form of the graph that may be taken."""

    path: Path
    run: Run
    bytes: int
    """Of its weights."""
    deviation: Deviation | None
    """From the fp32 graph; None when its scores are not finite, and for the fp32 graph itself."""


class Workbench:
    """A folder of candidates. `model` is the fp32 graph with its weights in memory."""

    def __init__(self, spec: GraphSpec, model: Model, folder: Path, work: Work, timer: Timer) -> None:
        self.spec, self.folder, self.work, self.timer = spec, folder, work, timer
        self._exact: list[Float32] = []
        self.base = self.whole("fp32", model)
        self._exact = self._logits(self.base.run)

    def whole(self, name: str, model: Model, *, rounded: bool = False) -> Candidate:
        """Write and judge a graph that holds its weights; `rounded`: by what it gives when all values are fp16."""
        save_graph(model, self.folder / f"{name}.onnx")
        return self._judged(name, rounded=rounded)

    def outlined(self, name: str, model: Model) -> Candidate:
        """The same for one that refers to the weights of another candidate."""
        save_outline(model, self.folder / f"{name}.onnx")
        return self._judged(name)

    def ratio(self, new: Candidate, old: Candidate) -> Paired:
        """The time of `new` ÷ that of `old`."""
        return self.timer(old.run, new.run, self.work.judged)

    def ranges(self, base: Candidate, names: list[str]) -> Ranges:
        """The values that tensors of `base` have over the requests for calibration."""
        save_outline(with_ranges(outline(base.path), names), self.folder / "ranges.onnx")
        run = self._open("ranges")
        found = np.array([run(feeds) for feeds in self.work.calibration])  # [requests, 2 · tensors]
        low, high = found[:, 0::2].min(axis=0), found[:, 1::2].max(axis=0)
        return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}

    def _judged(self, name: str, *, rounded: bool = False) -> Candidate:
        path, run = self.folder / f"{name}.onnx", self._open(name)
        found = None
        if rounded:
            found = deviation(self._logits(in_half(self.folder, self._named(name)), ROUNDED), self._exact[:ROUNDED])
        elif self._exact:
            found = deviation(self._logits(run), self._exact)
        return Candidate(path, run, size(outline(path)), found)

    def _open(self, name: str) -> Run:
        return runner(self.folder, self._named(name))

    def _named(self, name: str) -> GraphSpec:
        return self.spec.model_copy(update={"file": f"{name}.onnx"})

    def _logits(self, run: Run, most: int | None = None) -> list[Float32]:
        return [self.work.logits(i, run(feeds)) for i, feeds in enumerate(self.work.judged[:most])]
