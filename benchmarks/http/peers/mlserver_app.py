"""MLServer with a custom handler, which takes the very same JSON body.

parallel_workers=0 is its documentation's way to run without the inference pool, whose processes are of no use on one
core (https://docs.seldon.ai/mlserver/user-guide/parallel-inference); debug and gzip are off. Custom handlers:
https://docs.seldon.ai/mlserver/user-guide/custom. The V2 protocol was slower: 363 requests a second by the handler, 280
with the JSON as one BYTES input, 235 with natural INT64 tensors (light, our graph, 4 connections).
"""

import asyncio
import os
from typing import Any

import uvloop
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers import custom_handler
from scoring import Scorer


class Ads(MLModel):
    """A custom runtime."""

    async def load(self) -> bool:
        """Load the graph."""
        self.scorer = Scorer(os.environ["PEER_WEIGHTS"], os.environ["PEER_GRAPH"])
        return True

    @custom_handler(rest_path="/score")
    async def score(self, body: dict[str, Any]) -> dict[str, Any]:
        """The click probability of each ad."""
        return {"scores": self.scorer.score_body(body)}


async def main() -> None:
    """Serve until told to stop."""
    grpc, metrics = map(int, os.environ["PEER_SPARE_PORTS"].split(","))
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=int(os.environ["PEER_PORT"]),
        grpc_port=grpc,
        metrics_port=metrics,
        parallel_workers=0,
        gzip_enabled=False,
    )
    await MLServer(settings).start(models_settings=[ModelSettings(name="ads", implementation=Ads)])


if __name__ == "__main__":
    uvloop.install()
    asyncio.run(main())
