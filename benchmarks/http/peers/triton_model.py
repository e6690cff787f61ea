"""The Python model that Triton runs; see triton_app.py."""

import os
from typing import Any

import triton_python_backend_utils as backend  # Triton's own, there only inside its process
from scoring import Scorer


class TritonPythonModel:
    """Natural tensors in, probabilities out."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """Load the graph."""
        del arguments
        self.scorer = Scorer(os.environ["PEER_WEIGHTS"], os.environ["PEER_GRAPH"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """An answer for each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        ads, age, city, clicks = (
            backend.get_input_tensor_by_name(request, name).as_numpy() for name in ("ads", "age", "city", "clicks")
        )
        scores = self.scorer.score(ads, int(age[0]), int(city[0]), clicks)
        return backend.InferenceResponse([backend.Tensor("scores", scores)])
