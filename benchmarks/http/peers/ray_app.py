"""Ray Serve: one replica, throughput-optimised, HAProxy in front.

https://docs.ray.io/en/latest/serve/advanced-guides/performance.html: RAY_SERVE_THROUGHPUT_OPTIMIZED=1 (set by
benchmarks/http/servers.py) and `async def` for the callable. With RAY_SERVE_ENABLE_HA_PROXY=1, which its guide to high
throughput adds, HAProxy takes the place of the Python proxy: 250 requests a second with our light graph instead of 70.
The raw body is parsed once; dashboard and access log are off.
"""

import os
import signal
import threading
from pathlib import Path

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from scoring import Scorer
from starlette.requests import Request
from starlette.responses import JSONResponse

QUIET = {"enable_access_log": False}


@serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options={"num_cpus": 1}, logging_config=QUIET)
class Ads:
    """One replica."""

    def __init__(self, weights: str, graph: str) -> None:
        self.scorer = Scorer(weights, graph)

    async def __call__(self, request: Request) -> JSONResponse:
        """The click probability of each ad."""
        return JSONResponse({"scores": self.scorer.score_json(await request.body())})


if __name__ == "__main__":
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        _temp_dir=str(Path(os.environ["PEER_SCRATCH"]) / "ray"),
    )
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(os.environ["PEER_PORT"])), logging_config=QUIET)
    serve.run(Ads.bind(os.environ["PEER_WEIGHTS"], os.environ["PEER_GRAPH"]), route_prefix="/score")
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended.wait()
    ray.shutdown()
