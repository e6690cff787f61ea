"""Who is measured: us and the peers, how each is started, and what its requests and answers look like.

The peers' programs, with the settings their documentation advises and where it does, are in peers/.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.http.load import http_request
from benchmarks.http.process import ServerProcess, free_port, python_of

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "peers"
OURS = "adrank"
LOCAL = ("--host", "127.0.0.1")
SPARE_PORTS = 2

Body = dict[str, Any]


def same(body: Body) -> Body:
    """The body as it is."""
    return body


def scores_field(answer: Body) -> list[float]:
    """What most peers' programs answer."""
    scores: list[float] = answer["scores"]
    return scores


@dataclass(frozen=True, slots=True)
class Peer:
    """One other server."""

    name: str
    settings: str
    """What was chosen, for the table."""
    command: Sequence[str]
    """{bin}: the folder of its environment's programs; {programs}, {port}."""
    distribution: str
    """Whose version the table shows."""
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = "/score"
    wrap: Callable[[Body], Body] = same
    scores: Callable[[Body], list[float]] = scores_field
    settle_s: float = 0.0
    """After the first success, until it may be measured."""
    own_environment: bool = True

    @property
    def requirements(self) -> Path:
        """What its environment holds."""
        return PROGRAMS / f"{self.name}.txt"

    def home(self, environments: Path) -> Path | None:
        """The folder of its environment, None for ours."""
        return environments / self.name if self.own_environment else None

    def start(self, environments: Path, weights: Path, graph: str, scratch: Path, core: int) -> ServerProcess:
        """A process that will serve the graph; FileNotFoundError when its environment is not there."""
        home = self.home(environments)
        python = Path(python_of(home))  # absolute: the server runs in a folder of its own
        if not python.exists():
            raise FileNotFoundError(f"no environment {home}: adrank bench http --setup {self.name}")
        port = free_port()
        parts = {"bin": str(python.parent), "programs": str(PROGRAMS), "port": str(port), "scratch": str(scratch)}
        told = {
            "PEER_WEIGHTS": str(weights),
            "PEER_GRAPH": graph,
            "PEER_PORT": str(port),
            "PEER_SPARE_PORTS": ",".join(str(free_port()) for _ in range(SPARE_PORTS)),
            "PEER_SCRATCH": str(scratch),
            "PYTHONPATH": str(PROGRAMS),
        }
        own = {name: value.format(**parts) for name, value in self.environment.items()}
        command = [part.format(**parts) for part in self.command]
        return ServerProcess(command, told | own, scratch, ("127.0.0.1", port), core)


def kserve(body: Body) -> Body:
    """The same as natural tensors of the KServe V2 protocol: the fastest for Triton, which parses JSON in C++."""
    profile = body["user"]["profile"]
    tensors = {
        "ads": body["ads"],
        "age": [profile["age"]],
        "city": [profile["city"]],
        "clicks": body["user"]["history"]["clicks"],
    }
    return {"inputs": [{"name": n, "shape": [len(v)], "datatype": "INT64", "data": v} for n, v in tensors.items()]}


def kserve_scores(answer: Body) -> list[float]:
    """The one output of an answer in the KServe V2 protocol."""
    scores: list[float] = answer["outputs"][0]["data"]
    return scores


PEERS = {
    peer.name: peer
    for peer in (
        Peer(
            "fastapi",
            "uvicorn, uvloop, httptools, async route, pydantic body",
            ("{bin}/python", "{programs}/fastapi_app.py"),
            "fastapi",
            own_environment=False,
        ),
        Peer(
            "litserve",
            "1 API server, 1 worker, fast_queue, no batching",
            ("{bin}/python", "{programs}/litserve_app.py"),
            "litserve",
        ),
        Peer(
            "bentoml",
            "bentoml serve, 1 worker, 1 thread, uvloop, httptools",
            [
                "{bin}/bentoml",
                "serve",
                "bentoml_app:Ads",
                "--host",
                "127.0.0.1",
                "--port",
                "{port}",
                "--working-dir",
                "{programs}",
            ],
            "bentoml",
            environment={"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": "{scratch}/bentoml"},
        ),
        Peer(
            "ray",
            "1 replica, throughput-optimised, HAProxy, async",
            ("{bin}/python", "{programs}/ray_app.py"),
            "ray",
            environment={
                "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
                "RAY_SERVE_ENABLE_HA_PROXY": "1",
                "RAY_SERVE_HAPROXY_NBTHREAD": "1",
                "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "{scratch}/h/haproxy.cfg",
                "RAY_SERVE_HAPROXY_SOCKET_PATH": "{scratch}/h/admin.sock",
                "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "{scratch}/h",
                "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "{scratch}/h/server-state",
                "RAY_AUTH_MODE": "disabled",
                "RAY_USAGE_STATS_ENABLED": "0",
            },
            settle_s=3.0,  # HAProxy is started anew once the replica is there, which cuts connections
        ),
        Peer(
            "mlserver",
            "custom handler, no inference pool, uvloop",
            ("{bin}/python", "{programs}/mlserver_app.py"),
            "mlserver",
        ),
        Peer(
            "triton",
            "own binary, Python backend with onnxruntime, INT64 tensors, 1 instance",
            ("{bin}/python", "{programs}/triton_app.py"),
            "nvidia-pytriton",
            path="/v2/models/ads/infer",
            wrap=kserve,
            scores=kserve_scores,
        ),
    )
}

OUR_PATH = "/v1/score"
OUR_SETTINGS = "1 worker"


def start_ours(bundle: Path, scratch: Path, core: int, *more: str) -> ServerProcess:
    """`adrank serve` for one core, with further options. No stage is ever left out for lack of time."""
    port = free_port()
    command = [sys.executable, str(ROOT / "adrank.py"), "serve", "--bundle", str(bundle.absolute())]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--default-deadline-ms", "10000", *more]
    return ServerProcess(command, {}, scratch, ("127.0.0.1", port), core)


def our_scores(answer: Body) -> list[float]:
    """The scores of our answer. ValueError when it is degraded."""
    if answer["degraded"] or answer["scored_by"] != "finerank":
        raise ValueError(f"{OURS} answered degraded: {answer['degraded']}, scored by {answer['scored_by']}")
    scores: list[float] = answer["pctr"]
    return scores


def encoded(path: str, wrap: Callable[[Body], Body], bodies: Sequence[Body]) -> list[bytes]:
    """HTTP requests of these bodies."""
    return [http_request(path, json.dumps(wrap(body), separators=(",", ":")).encode()) for body in bodies]
