"""LitServe: one API server process and one inference worker, as its documentation has it for one core.

https://lightning.ai/docs/litserve/api-reference/litserver: workers_per_device is "the number of cores available" on a
CPU; fast_queue is for high throughput; log_level warning and no client file in production. Batching is for devices that
run a batch faster than its parts (https://lightning.ai/docs/litserve/features/batching); a core does not.
"""

import os
from typing import Any

import litserve
from scoring import Scorer


class ScoreApi(litserve.LitAPI):
    """Decode, predict, encode."""

    def setup(self, device: str) -> None:
        """Load the graph, in the worker."""
        del device
        self.scorer = Scorer(os.environ["PEER_WEIGHTS"], os.environ["PEER_GRAPH"])

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """The body is the input."""
        return request

    def predict(self, body: dict[str, Any]) -> list[float]:
        """Probabilities."""
        return self.scorer.score_body(body)

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        """The answer's body."""
        return {"scores": output}


if __name__ == "__main__":
    server = litserve.LitServer(
        ScoreApi(api_path="/score"), accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
