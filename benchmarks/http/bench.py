"""`adrank bench http`: our service and others with the same weights and the same body, one core each in turn."""

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.bundles import ROOT
from benchmarks.http.ceiling import measure_ceiling
from benchmarks.http.environments import set_up, version_of
from benchmarks.http.load import ask
from benchmarks.http.material import ADS, CHECKED, GRAPHS, Material, make_material
from benchmarks.http.overhead import measure_overhead
from benchmarks.http.process import Cores, ServerProcess, ended_cleanly, on_core, two_cores
from benchmarks.http.rounds import CLOSED, FULL, QUICK, Plan, Running, run_rounds
from benchmarks.http.servers import (
    OUR_PATH,
    OUR_SETTINGS,
    OURS,
    PEERS,
    Body,
    Peer,
    encoded,
    our_scores,
    same,
    start_ours,
)
from benchmarks.http.tables import Row, add_ceiling, add_exchange, add_overhead, add_phase, add_servers
from benchmarks.report import Report
from benchmarks.work import UNITS

ENVIRONMENTS = ROOT / "peers"
PLAIN = "fastapi"
START_S = 90.0
"""Ray takes 12 s on one core."""
QUICK_ADS = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Peers, graphs, and where the peers' environments are."""
    known = ", ".join(PEERS)
    parser.add_argument(
        "--setup",
        nargs="*",
        metavar="PEER",
        help=f"install these peers' environments ({known}; none named: all), and end",
    )
    parser.add_argument("--peers", nargs="+", choices=PEERS, metavar="PEER", help=f"measure these only: {known}")
    parser.add_argument(
        "--graph",
        choices=(*GRAPHS, "both"),
        default="both",
        help="what the peers run: the usual tiled export, our graph, or one after the other [both]",
    )
    parser.add_argument("--unit", choices=(*UNITS, "both"), default="both", help="activation unit [both]")
    parser.add_argument(
        "--rounds", type=int, default=None, metavar="N", help=f"rounds of the tiled graph [{FULL.rounds}]"
    )
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, metavar="DIR", help="the peers' environments [%(default)s]"
    )


def run(arguments: argparse.Namespace) -> Report:
    """`http.<unit>.*`; see benchmarks/http/tables.py for the keys. ValueError for a server with other scores."""
    report = Report("http")
    if arguments.setup is not None:
        report.notes += set_up(arguments.setup, arguments.environments)
        return report
    torch.set_num_threads(1)
    names = arguments.peers or ([PLAIN] if arguments.quick else list(PEERS))
    bench = Bench(report, [PEERS[name] for name in names], arguments.environments.absolute(), two_cores())
    units = list(UNITS) if arguments.unit == "both" else [arguments.unit]
    graphs = [arguments.graph] if arguments.graph != "both" else [GRAPHS[0]] if arguments.quick else list(GRAPHS)
    gc.collect()
    gc.freeze()  # a collection of all that torch allocated would take 50 ms of somebody's turn
    # Short names: Ray and HAProxy put sockets below, whose paths have at most 97 characters, 57 of them HAProxy's own.
    with tempfile.TemporaryDirectory(prefix="ah-", ignore_cleanup_errors=True) as folder, ended_cleanly():
        for unit in units:
            material = make_material(ROOT, Path(folder), unit, QUICK_ADS if arguments.quick else ADS)
            if unit == units[0]:
                bench.ceiling(material, Path(folder))
            for graph in graphs:
                plan = QUICK if arguments.quick else FULL if graph == GRAPHS[0] else CLOSED
                if arguments.rounds is not None:
                    plan = replace(plan, rounds=arguments.rounds)
                bench.phase(material, Path(folder) / (unit[0] + graph[0]), unit, graph, plan)
            if unit == "light":
                bench.overhead(material, Path(folder) / "overhead", 3 if arguments.quick else 15)
    add_exchange(report)
    bench.who()
    return report


@dataclass(slots=True)
class Bench:
    """What the parts of one run share."""

    report: Report
    peers: Sequence[Peer]
    environments: Path
    cores: Cores
    memory: dict[str, float] = field(default_factory=dict)
    """Megabytes by server, of the first network it served."""

    def ceiling(self, material: Material, scratch: Path) -> None:
        """The generator alone."""
        requests = encoded(OUR_PATH, same, material.bodies)
        folder = scratch / "ceiling"
        folder.mkdir()
        add_ceiling(self.report, measure_ceiling(requests, self.cores, folder, seconds=1.0))

    def overhead(self, material: Material, scratch: Path, rounds: int) -> None:
        """HTTP and Redis against scoring in process; a note when there is no Redis."""
        scratch.mkdir()
        try:
            found = measure_overhead(material, self.cores, scratch, rounds, seconds=0.5)
        except FileNotFoundError as error:
            self.report.notes.append(f"http.light.overhead_ratio is not measured: {error}")
            return
        add_overhead(self.report, found)

    def phase(self, material: Material, scratch: Path, unit: str, graph: str, plan: Plan) -> None:
        """Start everybody, prove their scores, measure in turns."""
        failed: dict[str, str] = {}
        running: dict[str, Running] = {}
        try:
            running[OURS] = self._started(
                OURS,
                material,
                encoded(OUR_PATH, same, material.bodies),
                our_scores,
                lambda: start_ours(material.bundle, made(scratch / OURS), self.cores.server),
            )
            for peer in self.peers:
                print(f"http: {unit}, {graph}: starting {peer.name} ...", file=sys.stderr)
                try:
                    running[peer.name] = self._started(
                        peer.name,
                        material,
                        encoded(peer.path, peer.wrap, material.bodies),
                        peer.scores,
                        partial(self._start, peer, material, graph, made(scratch / peer.name)),
                        peer.settle_s,
                    )
                except OSError as error:
                    failed[peer.name] = str(error)
            print(f"http: {unit}, {graph}: {len(running)} servers, {plan.rounds} rounds ...", file=sys.stderr)
            with on_core(self.cores.load):
                seen = run_rounds(running, plan, failed)
        finally:
            for server in running.values():
                server.process.stop()
        add_phase(self.report, unit, graph, seen, failed, plan.rounds)

    def who(self) -> None:
        """The table of servers."""
        rows: list[Row] = [(OURS, "this", OUR_SETTINGS, self.memory.get(OURS, ""))]
        for peer in self.peers:
            version = version_of(peer.name, self.environments)
            rows.append((peer.name, version, peer.settings, self.memory.get(peer.name, "")))
        add_servers(self.report, rows)

    def _start(self, peer: Peer, material: Material, graph: str, folder: Path) -> ServerProcess:
        return peer.start(self.environments, material.weights, graph, folder, self.cores.server)

    def _started(
        self,
        name: str,
        material: Material,
        requests: Sequence[bytes],
        scores: Callable[[Body], list[float]],
        start: Callable[[], ServerProcess],
        settle_s: float = 0.0,
    ) -> Running:
        """A paused server that was proved to give the model's scores."""
        process = start()
        try:
            process.wait_until_it_answers(requests[0], START_S)
            time.sleep(settle_s)
            for i in range(CHECKED):
                material.check(name, i, scores(json.loads(ask(process.address, requests[i]))))
            self.memory.setdefault(name, process.memory_mb())
            process.pause()
        except BaseException:
            process.stop()
            raise
        return Running(process, requests)


def made(folder: Path) -> Path:
    """The folder, made with what is above it."""
    folder.mkdir(parents=True)
    return folder
