"""Large weights stand in a file beside the graph, and the graph is the same."""

import shutil
import stat
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.weights import MAPPED, open_graph, outline, save_graph, size, weight
from tests.export.graphs import constant, embedder, run, table

LARGE = table(rows=MAPPED // 32 + 100)
"""A little more than what is kept inside."""
IDS = {"ids": np.array([[0, 1], [MAPPED // 32 + 99, 7]])}


def test_large_weights_stand_beside_the_graph(tmp_path: Path) -> None:
    expected = run(embedder(LARGE), IDS)[0]
    path = tmp_path / "g.onnx"
    assert save_graph(embedder(LARGE), path) == "g.weights"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["g.onnx", "g.weights"]
    assert path.stat().st_size < 5_000
    assert (tmp_path / "g.weights").stat().st_size >= LARGE.nbytes
    np.testing.assert_array_equal(run(path, IDS)[0], expected)
    np.testing.assert_array_equal(run(open_graph(path), IDS)[0], expected)


def test_small_weights_stay_inside(tmp_path: Path) -> None:
    assert save_graph(embedder(table()), tmp_path / "g.onnx") is None
    assert [each.name for each in tmp_path.iterdir()] == ["g.onnx"]


def test_who_may_read_the_graph_may_read_its_weights(tmp_path: Path) -> None:
    save_graph(embedder(LARGE), tmp_path / "g.onnx")
    modes = {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    assert len(modes) == 1


def test_writing_again_replaces_both(tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    for _ in range(2):
        save_graph(embedder(LARGE), path)
        assert (tmp_path / "g.weights").stat().st_size < LARGE.nbytes + (1 << 17)
    assert save_graph(embedder(table()), path) is None
    assert not (tmp_path / "g.weights").exists()


def test_what_nothing_reads_is_left_out(tmp_path: Path) -> None:
    graph = embedder(table())
    graph.graph.initializer.append(constant("forgotten", LARGE))
    graph.graph.node[0].metadata_props.add(key="stack_trace", value='File "somewhere.py", line 3')
    assert save_graph(graph, tmp_path / "g.onnx") is None
    kept = onnx.load(str(tmp_path / "g.onnx")).graph
    assert [each.name for each in kept.initializer] == ["table", "axis", "matrix"]
    assert not any(each.metadata_props for each in kept.node)


def test_an_outline_is_whole_where_its_weights_are(tmp_path: Path) -> None:
    save_graph(embedder(LARGE), tmp_path / "g.onnx")
    light = outline(tmp_path / "g.onnx")
    assert light.ByteSize() < 5_000
    assert size(light) == size(embedder(LARGE)) == LARGE.nbytes + 8 + 4 * 8 * 5
    tensors = {each.name: each for each in light.graph.initializer}
    np.testing.assert_array_equal(weight(tensors["table"], tmp_path), LARGE)
    assert weight(tensors["matrix"], tmp_path).shape == (8, 5)
    onnx.save(light, str(tmp_path / "other.onnx"))
    np.testing.assert_array_equal(run(tmp_path / "other.onnx", IDS)[0], run(tmp_path / "g.onnx", IDS)[0])


def test_weights_elsewhere_are_not_read(tmp_path: Path) -> None:
    """A graph cannot name a file outside of its folder."""
    inner = tmp_path / "inner"
    inner.mkdir()
    save_graph(embedder(LARGE), inner / "g.onnx")
    shutil.move(inner / "g.weights", tmp_path / "g.weights")
    light = outline(inner / "g.onnx")
    for tensor in light.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../g.weights"
    (inner / "g.onnx").write_bytes(light.SerializeToString())
    with pytest.raises(Exception, match=r"(?i)external data"):
        run(inner / "g.onnx", IDS)
