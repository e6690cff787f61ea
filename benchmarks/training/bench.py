"""DIN's training throughput: samples a second of ours, torch-rechub's and DeepCTR-Torch's, in turns within one run.

Everybody trains on the same impressions with the same sizes, batches, threads and Adam, and treats denormal floats as
zero. We take request-grouped batches, the others flat rows. Three logs say where a difference comes from:

    kuairand   1 impression a request, histories as long as KuaiRand's: what the real data are like
    full       1 impression a request, all histories of the longest length: nothing is padded
    grouped    10 impressions a request, as a feed logs them; the others get the rows shuffled
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.environments import install, version_in
from benchmarks.report import Report, Table
from benchmarks.timing import p50
from benchmarks.training.data import simulate, write
from benchmarks.training.workers import PEERS, Peer, Worker, start_ours

ENVIRONMENTS = Path("artifacts/bench/peers")
OURS = "adrank"
LEARNING_RATE = 1e-3
Cells = tuple[tuple[int, int], ...]
"""Batch and threads of each."""


@dataclass(frozen=True, slots=True)
class LogShape:
    """One log."""

    shown: int
    """Impressions a request."""
    full: bool
    """Whether all histories have the longest length."""
    cells: Cells
    """Batch and threads of what is measured on it."""


LOGS = {
    "kuairand": LogShape(1, False, tuple((batch, threads) for batch in (256, 512, 1_024) for threads in (1, 2))),
    "full": LogShape(1, True, ((512, 1),)),
    "grouped": LogShape(10, False, ((512, 1),)),
}
MAIN = "kuairand"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Peers, their environments, and how long to measure."""
    known = ", ".join(PEERS)
    parser.add_argument(
        "--setup", nargs="*", metavar="PEER",
        help=f"install these peers' environments ({known}; none named: all), and end",
    )  # fmt: skip
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), metavar="PEER", help=f"[{known}]")
    parser.add_argument(
        "--environments", type=Path, default=ENVIRONMENTS, metavar="DIR", help="the peers' environments [%(default)s]"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="everybody has a turn in each [3]")
    parser.add_argument("--impressions", type=int, default=16_384, metavar="N", help="of a turn [16384]")
    parser.add_argument(
        "--cells", nargs="+", metavar="BATCHxTHREADS",
        help="only these, such as 256x2, on each log that has them (default all)",
    )  # fmt: skip
    parser.add_argument(
        "--learn", type=int, default=65_536, metavar="N", help="impressions of the epoch whose losses are shown [65536]"
    )


def run(arguments: argparse.Namespace) -> Report:
    """`train.din.LOG.bBATCH.tTHREADS.WHO.samples_per_s` and `.ratio_best_peer`; on the log of KuaiRand's shape
    `train.din.WHO.samples_per_s`, the median over batches and threads, and `train.din.ratio_best_peer`, the smallest;
    `train.din.WHO.logloss`. A peer counts with the better of its two variants."""
    report = Report("train")
    if arguments.setup is not None:
        report.notes += set_up(arguments.setup, arguments.environments)
        return report
    quick = arguments.quick
    logs = {name: shape.cells[:1] if quick else shape.cells for name, shape in LOGS.items()}
    if arguments.cells is not None:
        logs = chosen(arguments.cells, logs)
    bench = Bench(report, arguments.environments.absolute(), 1 if quick else arguments.rounds)
    with TemporaryDirectory() as temporary:
        bench.start([PEERS[name] for name in arguments.peers])
        try:
            impressions = 2_560 if quick else arguments.impressions
            bench.learn(Path(temporary) / "learn", 5_120 if quick else arguments.learn)
            for name, cells in logs.items():
                folder = Path(temporary) / name
                _simulated(folder, impressions, LOGS[name])
                bench.log(name, folder, cells)
        finally:
            bench.stop()
    bench.summary()
    return report


def chosen(wanted: Sequence[str], logs: Mapping[str, Cells]) -> dict[str, Cells]:
    """Of each log's cells those that are wanted, `BATCHxTHREADS`; a log that has none of them is left out.

    ValueError for one that no log has.
    """
    known = {f"{batch}x{threads}" for cells in logs.values() for batch, threads in cells}
    if strange := sorted(set(wanted) - known):
        raise ValueError(f"there is no cell {strange[0]!r} to measure; known: {', '.join(sorted(known))}")
    found = {name: tuple(cell for cell in cells if f"{cell[0]}x{cell[1]}" in wanted) for name, cells in logs.items()}
    return {name: cells for name, cells in found.items() if cells}


def set_up(names: list[str], root: Path) -> list[str]:
    """Make the environment of each peer anew under `root`. One line a peer: installed, or why not.

    ValueError for a name that is none.
    """
    if strange := sorted(set(names) - set(PEERS)):
        raise ValueError(f"there is no peer {strange[0]!r}; known: {', '.join(PEERS)}")
    lines = []
    for peer in (PEERS[name] for name in names or PEERS):
        print(f"{peer.name}: {root / peer.name} ...", file=sys.stderr)
        error = install(root / peer.name, peer.requirements)
        said = f"not installed: {error}" if error else f"installed {version_in(str(peer.python(root)), peer.name)}"
        lines.append(f"{peer.name}: {said}")
    return lines


def _simulated(folder: Path, impressions: int, shape: LogShape) -> None:
    """With an eighth more as validation split."""
    folder.mkdir()
    valid = max(impressions // 8 // shape.shown, 1)
    write(simulate(impressions + valid * shape.shown, shape.shown, full=shape.full), folder, valid)


@dataclass(slots=True)
class Bench:
    """What the parts of one run share."""

    report: Report
    environments: Path
    rounds: int
    workers: dict[str, Worker] = field(default_factory=dict)
    variants: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Who takes part, by the name in the tables -> worker and variant."""
    failed: list[tuple[str | int | float, ...]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def start(self, peers: list[Peer]) -> None:
        """Everybody's process; a peer without an environment is noted."""
        self.workers[OURS], self.variants[OURS] = start_ours(), (OURS, "")
        for peer in peers:
            try:
                self.workers[peer.name] = peer.start(self.environments)
            except OSError as error:
                self.failed.append((peer.name, str(error)))
                continue
            python = str(peer.python(self.environments))
            self.versions[peer.name] = f"{version_in(python, peer.name)}, torch {version_in(python, 'torch')}"
            self.variants |= {f"{peer.name}, {variant}": (peer.name, variant) for variant in peer.variants}

    def stop(self) -> None:
        """End all processes."""
        for worker in self.workers.values():
            worker.stop()

    def turn(self, who: str, folder: Path, batch: int, threads: int) -> dict[str, float] | None:
        """One epoch. A peer that fails is out, with its error. OSError when it is ours that fails."""
        name, variant = self.variants[who]
        job = {
            "folder": str(folder), "variant": variant, "batch": batch, "threads": threads,
            "learning_rate": LEARNING_RATE, "seed": 1,
        }  # fmt: skip
        try:
            return self.workers[name].ask(job)
        except OSError as error:
            if name == OURS:
                raise OSError(f"our own training failed: {error}") from error
            self.failed.append((who, str(error)))
            self.variants = {each: found for each, found in self.variants.items() if found[0] != name}
            return None

    def learn(self, folder: Path, impressions: int) -> None:
        """One longer epoch of everybody, lean: parameters and losses side by side. It is the warm-up too."""
        _simulated(folder, impressions, LOGS[MAIN])
        rows: list[tuple[str | int | float, ...]] = []
        last = {name: who for who, (name, _) in self.variants.items()}
        for name, who in last.items():
            found = self.turn(who, folder, 256, 1)
            if found is not None:
                dense = int(found["parameters"] - found["embeddings"])
                rows.append((name, int(found["embeddings"]), dense, f"{found['logloss']:.4f}"))
                self.report.figures[f"train.din.{name}.logloss"] = found["logloss"]
        title = f"Log loss of {impressions // 8:,} other impressions after one epoch of {impressions:,}, batch 256"
        self.report.tables.append(Table(title, ("who", "weights of embeddings", "other weights", "log loss"), rows))

    def log(self, name: str, folder: Path, cells: Cells) -> None:
        """All cells of one log, everybody in turns."""
        rows: list[tuple[str | int | float, ...]] = []
        for batch, threads in cells:
            rates: dict[str, list[float]] = {who: [] for who in self.variants}
            for number in range(self.rounds):
                order = list(self.variants)
                for who in order if number % 2 == 0 else reversed(order):
                    found = self.turn(who, folder, batch, threads) if who in self.variants else None
                    if found is not None:
                        rates[who].append(found["samples"] / found["seconds"])
            rates = {who: rates[who] for who in self.variants}
            rows += self._cell(f"train.din.{name}.b{batch}.t{threads}", batch, threads, rates)
        shape = LOGS[name]
        title = f"Samples a second, {name}: {shape.shown} impressions a request, " + (
            "full histories" if shape.full else "histories as KuaiRand's"
        )
        columns = ("batch", "threads", "who", "samples a second", "min-max", "ours ÷ its")
        self.report.tables.append(Table(title, columns, rows))

    def _cell(
        self, key: str, batch: int, threads: int, rates: Mapping[str, list[float]]
    ) -> list[tuple[str | int | float, ...]]:
        rows: list[tuple[str | int | float, ...]] = []
        ratios: dict[str, float] = {}
        for who, found in rates.items():
            ours = np.array(rates[OURS]) / np.array(found)  # within a round
            if who != OURS:
                ratios[who] = p50(ours)
            self.report.figures[f"{key}.{_key(who)}.samples_per_s"] = p50(np.array(found))
            spread = f"{min(found):,.0f}-{max(found):,.0f}"
            rows.append((batch, threads, who, p50(np.array(found)), spread, p50(ours)))
        if ratios:
            self.report.figures[f"{key}.ratio_best_peer"] = min(ratios.values())
        return rows

    def summary(self) -> None:
        """What stands for the whole, who took part, and who could not."""
        figures = self.report.figures
        cells = [f"train.din.{MAIN}.b{batch}.t{threads}" for batch, threads in LOGS[MAIN].cells]
        for who in self.variants:
            rates = [figures[key] for cell in cells if (key := f"{cell}.{_key(who)}.samples_per_s") in figures]
            if not rates:
                continue  # only other logs were asked for
            figures[f"train.din.{_key(who)}.samples_per_s"] = float(np.median(rates))
        if ratios := [figures[key] for cell in cells if (key := f"{cell}.ratio_best_peer") in figures]:
            figures["train.din.ratio_best_peer"] = min(ratios)
        taking = [(name, version) for name, version in self.versions.items()]
        self.report.tables.append(Table("Other libraries", ("library", "version"), [*taking]))
        if self.failed:
            self.report.tables.append(Table("Not measured", ("who", "why"), self.failed))
        self.report.notes.append(f"Medians of {self.rounds} rounds; denormal floats are zero for everybody.")


def _key(who: str) -> str:
    """`torch-rechub, lean` -> `torch-rechub-lean`."""
    return who.replace(", ", "-")
