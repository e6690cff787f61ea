"""What was asked for is taken when it is near enough and pays; what was tried is on record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import export.precision
import export.tables
from bundle.manifest import GraphSpec
from bundle.precision import Precision
from export.deviation import PrecisionError
from export.pairs import Paired
from export.parity import Feeds, Run
from export.precision import settle
from export.weights import save_graph
from export.work import Work
from tests.export.graphs import ROWS, SPEC, Float32, embedder, run, table


class Stopwatch:
    """Gives the same verdict on everything, and keeps how often it was asked."""

    def __init__(self, ratio: float) -> None:
        self.ratio, self.asked = ratio, 0

    def __call__(self, old: Run, new: Run, requests: Sequence[Feeds]) -> Paired:
        self.asked += 1
        assert old is not new
        assert requests
        return Paired(self.ratio, self.ratio, self.ratio)


def requests(count: int, seed: int) -> list[Feeds]:
    random = np.random.default_rng(seed)
    return [{"ids": random.integers(0, ROWS, (50, 2))} for _ in range(count)]


def first_column(_: int, outputs: list[Float32]) -> Float32:
    logits: Float32 = outputs[0][:, 0] / np.float32(4)
    return logits


EXACT = embedder(table(spread=1))
EVERY_PAIR: list[Feeds] = [{"ids": np.stack(np.divmod(np.arange(ROWS**2), ROWS), axis=1)}]
WORK = Work(EVERY_PAIR, requests(8, 2), first_column)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_graph(embedder(table(spread=1)), tmp_path / SPEC.file)
    return tmp_path


def initializers(folder: Path) -> dict[str, onnx.TensorProto]:
    return {each.name: each for each in onnx.load(str(folder / SPEC.file)).graph.initializer}


def largest_difference(folder: Path) -> float:
    feeds: dict[str, Any] = dict(WORK.judged[0])
    return float(np.abs(run(folder / SPEC.file, feeds)[0] - run(EXACT, feeds)[0]).max())


def test_fp32_leaves_everything_as_it_is(folder: Path) -> None:
    before = (folder / SPEC.file).read_bytes()
    assert settle(SPEC, folder, "fp32", WORK) == SPEC
    assert (folder / SPEC.file).read_bytes() == before
    assert SPEC.precision == Precision()
    assert not SPEC.precision.is_reduced


def test_int8_tables_are_taken_whatever_they_take(folder: Path) -> None:
    found = settle(SPEC, folder, "int8", WORK, Stopwatch(1.5)).precision
    assert (found.asked, found.tables, found.dense, found.int8_nodes) == ("int8", "int8", "fp32", ())
    assert found.is_reduced
    assert found.deviation is not None
    assert 0 < found.deviation.logit_max < 0.1
    assert {"table.codes", "table.scales", "matrix"} <= initializers(folder).keys()
    tables, product = found.trials
    assert (tables.what, tables.taken, tables.why) == ("tables in int8", True, "asked for")
    assert (product.what, product.taken, product.why) == ("node_logits in int8", False, "not faster")
    assert 0 < largest_difference(folder) < 0.1


def test_products_that_are_faster_are_taken(folder: Path) -> None:
    found = settle(SPEC, folder, "int8", WORK, Stopwatch(0.5)).precision
    assert (found.tables, found.dense, found.int8_nodes) == ("int8", "int8", ("node_logits",))
    assert found.trials[1].taken
    assert found.trials[1].why == "faster"
    assert "matrix" not in initializers(folder)
    assert found.deviation is not None
    assert found.deviation != found.trials[0].deviation, "it is that of the graph as a whole"


class Tiring(Stopwatch):
    """Fast at first, slow from the third time on."""

    def __call__(self, old: Run, new: Run, requests: Sequence[Feeds]) -> Paired:
        super().__call__(old, new, requests)
        return Paired(*[0.5 if self.asked < 3 else 1.2] * 3)


def test_products_must_be_faster_in_the_end_as_well(folder: Path) -> None:
    found = settle(SPEC, folder, "int8", WORK, Tiring(0)).precision
    assert (found.dense, found.int8_nodes) == ("fp32", ())
    assert found.trials[1].why == "not faster in the end"


def test_auto_takes_the_smallest_tables_that_are_not_slower(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.precision, "WORTH", 100)
    found = settle(SPEC, folder, "auto", WORK, Stopwatch(1.0)).precision
    assert (found.asked, found.tables, found.dense) == ("auto", "int8", "fp32")
    assert [(each.what, each.taken) for each in found.trials] == [
        ("tables in fp16", False),
        ("tables in int8", True),
        ("tables in int4", False),
        ("node_logits in int8", False),
    ]
    assert found.trials[0].why == "another form is smaller still"
    assert found.trials[0].bytes > found.trials[1].bytes


@pytest.mark.parametrize(("ratio", "why"), [(1.0, "saves 0.0 MiB, less than 16, and is not faster"), (1.2, "slower")])
def test_auto_leaves_what_does_not_pay(folder: Path, ratio: float, why: str) -> None:
    before = (folder / SPEC.file).read_bytes()
    found = settle(SPEC, folder, "auto", WORK, Stopwatch(ratio))
    assert (found.precision.tables, found.precision.dense) == ("fp32", "fp32")
    assert not found.precision.is_reduced
    assert found.precision.deviation is None
    assert [each.why for each in found.precision.trials[:2]] == [why, why]
    assert (folder / SPEC.file).read_bytes() == before


def test_auto_takes_what_is_faster(folder: Path) -> None:
    found = settle(SPEC, folder, "auto", WORK, Stopwatch(0.5)).precision
    assert (found.tables, found.dense) == ("int8", "int8")


def test_fp16_is_the_whole_graph_and_is_not_timed(folder: Path) -> None:
    watch = Stopwatch(1.0)
    found = settle(SPEC, folder, "fp16", WORK, watch).precision
    assert (found.asked, found.tables, found.dense, watch.asked) == ("fp16", "fp16", "fp16", 0)
    kinds = {each.data_type for each in initializers(folder).values()}
    assert onnx.TensorProto.FLOAT not in kinds
    assert 0 < largest_difference(folder) < 0.02


def per_tensor(values: Float32, _: str) -> tuple[Any, Float32]:
    """What onnxruntime's quantize_dynamic does to a table: one scale for all of it."""
    scale = np.abs(values).max() / 127
    return np.rint(values / scale).astype(np.int8), np.full(len(values), scale, np.float32)


def test_one_scale_for_a_whole_table_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row is 100 times as large as the others, as that of a very frequent id may be."""
    values = table() / np.maximum(np.abs(table()).max(axis=1, keepdims=True), 1e-9)
    values[5] *= 100
    save_graph(embedder(values.astype(np.float32)), folder / SPEC.file)
    before = (folder / SPEC.file).read_bytes()
    assert settle(SPEC, folder, "int8", WORK, Stopwatch(1.0)).precision.tables == "int8", "one scale a row is not"
    (folder / SPEC.file).write_bytes(before)
    monkeypatch.setattr(export.tables, "quantise", per_tensor)
    with pytest.raises(
        PrecisionError, match=r"graph\.onnx in tables in int8 is too far from fp32 over 8 requests: .*pro"
    ):
        settle(SPEC, folder, "int8", WORK, Stopwatch(1.0))
    assert (folder / SPEC.file).read_bytes() == before
    found = settle(SPEC, folder, "auto", WORK, Stopwatch(0.5)).precision
    assert found.tables == "fp16"
    assert "differ" in found.trials[1].why


def test_products_that_are_too_far_are_left_in_fp32(folder: Path) -> None:
    """Calibrated on nothing but padding, every other value is cut off."""
    work = Work([{"ids": np.zeros((3, 2), np.int64)}], WORK.judged, WORK.logits)
    found = settle(SPEC, folder, "int8", work, Stopwatch(0.5)).precision
    assert (found.dense, found.int8_nodes) == ("fp32", ())
    assert "differ" in found.trials[1].why


def test_scores_that_are_no_numbers_are_refused(folder: Path) -> None:
    """The sum of a row pair overflows fp16."""
    values = table()
    values[1:] = 60_000
    save_graph(embedder(values), folder / SPEC.file)
    with pytest.raises(PrecisionError, match=r"in fp16 is too far from fp32 .*its scores are not finite"):
        settle(SPEC, folder, "fp16", WORK, Stopwatch(1.0))


def test_large_tables_stay_beside_the_graph(tmp_path: Path) -> None:
    rows = 600_000 // 8
    spec: GraphSpec = SPEC.model_copy(update={"weights": save_graph(embedder(table(rows=rows)), tmp_path / SPEC.file)})
    assert spec.weights == "graph.weights"
    assert settle(spec, tmp_path, "auto", WORK, Stopwatch(1.0)).weights == "graph.weights"
    before = (tmp_path / "graph.weights").stat().st_size
    found = settle(spec, tmp_path, "fp16", WORK, Stopwatch(1.0))
    assert found.weights == "graph.weights"
    assert (tmp_path / "graph.weights").stat().st_size < 0.55 * before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["graph.onnx", "graph.weights"]


def test_tables_that_become_small_move_into_the_graph(tmp_path: Path) -> None:
    weights = save_graph(embedder(table(rows=40_000)), tmp_path / SPEC.file)
    assert weights is not None
    found = settle(SPEC.model_copy(update={"weights": weights}), tmp_path, "int8", WORK, Stopwatch(1.0))
    assert found.weights is None
    assert [each.name for each in tmp_path.iterdir()] == ["graph.onnx"]
