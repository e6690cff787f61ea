"""What HTTP, Redis and the service around the network cost: p50 of a request ÷ p50 of scoring in process.

The request names a user that Redis holds, and sends none of its features. Redis runs on the server's core too: it is
part of the price. Scoring is what the service does in one piece, on the same core while the servers are stopped.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.http.load import closed_loop
from benchmarks.http.material import CHECKED, Material
from benchmarks.http.process import Cores, ServerProcess, free_port, on_core
from benchmarks.http.rounds import BUSY, Running, awake, ratio
from benchmarks.http.servers import OUR_PATH, ROOT, Body, encoded, our_scores, same, start_ours
from benchmarks.timing import p50
from bundle.record import UserRecord, unpack
from service.budget import Budget
from service.cascade import score
from service.encode import encode_common, rows_of
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.settings import Settings
from service.timing import RequestTiming

START_S = 60.0
LONG_MS = 10_000
READ, KEPT, THREAD = "read", "kept", "thread"
"""Every request reads its user from Redis; or the service's own copy serves, as for the next request of a user; or that
with ranking in a worker thread instead of the event loop."""
OPTIONS = {READ: ("--cache-users", "0"), KEPT: (), THREAD: ("--cascade-threads", "1")}


@dataclass(frozen=True, slots=True)
class Overhead:
    """p50 in milliseconds of each round."""

    scoring: list[float]
    requests: dict[str, list[float]]
    """By READ, KEPT and THREAD; one connection."""
    rates: dict[str, list[float]]
    """Requests a second, at BUSY connections."""

    def ratio(self, name: str) -> float:
        """The median over rounds of request ÷ scoring."""
        return ratio(self.requests[name], self.scoring)


def measure_overhead(material: Material, cores: Cores, scratch: Path, rounds: int, seconds: float) -> Overhead:
    """Scoring and requests in turns, `seconds` each a round. FileNotFoundError when there is no redis-server."""
    found = Overhead([], {name: [] for name in OPTIONS}, {name: [] for name in OPTIONS})
    work = Scoring(material)
    with redis_server(scratch, cores.server) as url:
        load_users(material.bundle, url)
        servers: dict[str, Running] = {}
        try:
            for name, options in OPTIONS.items():
                servers[name] = _start(material, scratch / name, cores, url, options)
            for _ in range(rounds):
                with on_core(cores.server):
                    found.scoring.append(work.p50_of(seconds))
                with on_core(cores.load):
                    for name, server in servers.items():
                        with awake(server.process):
                            one, busy = (
                                closed_loop(server.process.address, server.requests, connections, seconds)
                                for connections in (1, BUSY)
                            )
                        found.requests[name].append(p50(one.latencies))
                        found.rates[name].append(busy.throughput)
        finally:
            for server in servers.values():
                server.process.stop()
    return found


class Scoring:
    """The work of one request: encode what is known of the user, look the ads up, run the network."""

    def __init__(self, material: Material) -> None:
        self.live: LoadedBundle = load_bundle(material.bundle, Settings(bundle=material.bundle, redis_url=None))
        self.requests = [(body["user_id"], self._record(body["user_id"]), body["ads"]) for body in material.bodies]

    def p50_of(self, seconds: float) -> float:
        """Median milliseconds of one call, over `seconds`."""
        times: list[float] = []
        started = before = perf_counter()
        while before - started < seconds:
            self.once(len(times))
            after = perf_counter()
            times.append(after - before)
            before = after
        return p50(np.array(times)) * 1e3

    def once(self, turn: int) -> list[float]:
        """Probabilities for one of the bodies."""
        user_id, record, ads = self.requests[turn % len(self.requests)]
        bundle = self.live.bundle
        common = encode_common(bundle, user_id, record, None, {})
        found, _ = score(self.live, common, rows_of(bundle.ads.index, ads), Budget(LONG_MS), RequestTiming())
        probabilities: list[float] = found.tolist()
        return probabilities

    def _record(self, user_id: int) -> UserRecord:
        users = self.live.bundle.users
        packed = None if users is None else users.get(str(user_id))
        if packed is None:
            raise ValueError(f"{self.live.bundle.folder} holds no user {user_id}")
        return unpack(packed)


def _start(material: Material, folder: Path, cores: Cores, url: str, options: tuple[str, ...]) -> Running:
    """A paused server that reads users from Redis, proved to know them."""
    folder.mkdir()
    server = Running(
        start_ours(material.bundle, folder, cores.server, "--redis-url", url, *options),
        encoded(OUR_PATH, same, [stored(body) for body in material.bodies]),
    )
    try:
        for i, request in enumerate(server.requests[:CHECKED]):
            answer = json.loads(server.process.wait_until_it_answers(request, START_S))
            if answer["user"] != "known":
                raise ValueError(f"user {material.bodies[i]['user_id']} is {answer['user']}, though Redis holds it")
            material.check("adrank with Redis", i, our_scores(answer))
        server.process.pause()
    except BaseException:
        server.process.stop()
        raise
    return server


def stored(body: Body) -> Body:
    """The same request of a user whose features are in the store."""
    return {name: value for name, value in body.items() if name != "user"}


@contextmanager
def redis_server(scratch: Path, core: int) -> Iterator[str]:
    """The address of a Redis of its own, without persistence. FileNotFoundError when there is none installed."""
    program = shutil.which("redis-server")
    if program is None:
        raise FileNotFoundError("redis-server is not installed")
    folder, port = scratch / "redis", free_port()
    folder.mkdir()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = ServerProcess(command, {}, folder, ("127.0.0.1", port), core)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.stop()


def load_users(bundle: Path, url: str) -> None:
    """The bundle's users into Redis. ValueError when that fails."""
    command = [sys.executable, str(ROOT / "adrank.py"), "features", "load", "--bundle", str(bundle), "--redis", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"users were not loaded: {done.stderr.strip()[-300:]}")
