"""BentoML: one worker, a process each, as its documentation advises for one core
(https://docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html).

A synchronous API runs in a pool of one thread. The access log is off, as everywhere here
(https://docs.bentoml.com/en/latest/reference/bentoml/configurations.html). Adaptive batching is off: a core runs a
batch no faster than its parts. Its uvicorn finds uvloop and httptools by itself.
"""

import os
from typing import Any

import bentoml
from scoring import Scorer


@bentoml.service(workers=1, threads=1, logging={"access": {"enabled": False}})
class Ads:
    """One service."""

    def __init__(self) -> None:
        self.scorer = Scorer(os.environ["PEER_WEIGHTS"], os.environ["PEER_GRAPH"])

    @bentoml.api(route="/score")
    def score(
        self, user_id: int, context: dict[str, str], ads: list[int], user: dict[str, Any]
    ) -> dict[str, list[float]]:
        """The click probability of each ad."""
        del user_id, context
        return {"scores": self.scorer.score_body({"ads": ads, "user": user})}
