from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.operators import REST, time_by_kind
from export.to_onnx import export_graph


class Small(nn.Module):
    """One product, one logistic function, one sum, one maximum."""

    def forward(self, feeds: dict[str, Tensor]) -> Tensor:
        x = torch.sigmoid(feeds["user_numbers"] @ feeds["ad_numbers"])
        return torch.relu(x + feeds["context_numbers"])


def test_every_node_is_counted_once_under_its_kind(tmp_path: Path) -> None:
    inputs: dict[str, tuple[str | int, ...]] = {
        "user_numbers": ("m", "k"),
        "ad_numbers": ("k", "n"),
        "context_numbers": (1, "n"),
    }
    export_graph(Small(), inputs, ["y"], tmp_path / "small.onnx")
    shapes = {"user_numbers": (600, 1000), "ad_numbers": (1000, 100), "context_numbers": (1, 100)}
    feeds = {name: torch.rand(shape).numpy() for name, shape in shapes.items()}
    found = time_by_kind(tmp_path / "small.onnx", feeds, runs=5)
    assert {kind: nodes for kind, (nodes, _) in found.items() if nodes} == {
        "matrix products": 1,
        "logistic function": 1,
        "sums and products": 1,
        REST: 1,
    }
    assert all(ms > 0 for nodes, ms in found.values() if nodes)
    assert max(found, key=lambda kind: found[kind][1]) == "matrix products"
