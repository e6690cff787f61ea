"""What a computation cannot be faster than here: its multiply-adds at the rate of a large matrix product."""

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from export.to_onnx import export_graph
from service.scorer import make_session

SIZE = 768
"""Rows and columns of the product: 7 MB, about what a core's caches hold; larger ones are no faster."""


class _Product(nn.Module):
    def forward(self, feeds: dict[str, Tensor]) -> Tensor:
        return feeds["user_numbers"] @ feeds["ad_numbers"]


class GemmRate:
    """A square fp32 product in ONNX Runtime on one thread, to be run among the things it is compared with."""

    multiply_adds = SIZE**3

    def __init__(self, folder: Path) -> None:
        path = folder / "product.onnx"
        inputs: dict[str, tuple[str | int, ...]] = {"user_numbers": ("m", "k"), "ad_numbers": ("k", "n")}
        export_graph(_Product(), inputs, ["product"], path)
        self._session = make_session(path, "cpu", 1)
        random = np.random.default_rng(0)
        self._feeds = {name: random.random((SIZE, SIZE), dtype=np.float32) for name in inputs}

    def run(self) -> object:
        """One product."""
        return self._session.run(None, self._feeds)

    def floor_ms(self, multiply_adds: int, product_ms: float) -> float:
        """Milliseconds that many multiply-adds take when a product takes `product_ms`."""
        return multiply_adds / self.multiply_adds * product_ms
