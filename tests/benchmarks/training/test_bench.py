"""Our training is measured in a real process; peers take part where they are installed, and are named where not."""

import argparse
import ast
import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks.environments import version_in
from benchmarks.report import Report
from benchmarks.training import bench
from benchmarks.training.data import schema, simulate, write
from benchmarks.training.ours import NETWORK
from benchmarks.training.ours import turn as our_turn
from benchmarks.training.workers import PEERS, PROGRAMS, Peer, Worker
from models.networks.registry import build

ECHO = """
import json, sys
for line in sys.stdin:
    job = json.loads(line)
    if job["batch"] == 7:
        sys.exit("RuntimeError: seven is too few")
    found = {"samples": 100, "logloss": 0.5, "parameters": 9, "embeddings": 4}
    found["seconds"] = {"library": 2.0, "lean": 1.0}[job["variant"]]
    print(json.dumps(found), flush=True)
"""


def arguments(tmp_path: Path, *given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    bench.add_arguments(parser)
    return parser.parse_args(["--environments", str(tmp_path), *given])


class Counted(Peer):
    """A peer that answers with fixed times."""

    def start(self, environments: Path) -> Worker:
        return Worker([sys.executable, "-c", ECHO], environments)


@pytest.fixture
def measuring(tmp_path: Path) -> bench.Bench:
    return bench.Bench(Report("train"), tmp_path, rounds=2)


def test_our_turn_is_an_epoch_of_our_own_loop(tmp_path: Path) -> None:
    write(simulate(320, 1, full=False), tmp_path, valid=64)
    job = {"folder": str(tmp_path), "batch": 64, "threads": 1, "learning_rate": 1e-3, "seed": 1}
    found = our_turn(job)
    assert found["samples"] == 256
    assert found["seconds"] > 0
    assert 0.5 < found["logloss"] < 1.0
    network = build(NETWORK, schema())
    assert found["parameters"] == sum(each.numel() for each in network.parameters())
    assert found["logloss"] == our_turn(job)["logloss"]
    assert found["logloss"] != our_turn(job | {"seed": 2})["logloss"]


def test_a_run_without_peers_names_them(tmp_path: Path) -> None:
    report = bench.run(arguments(tmp_path, "--quick"))
    wanted = ("adrank.samples_per_s", "adrank.logloss", "kuairand.b256.t1.adrank.samples_per_s")
    assert {f"train.din.{name}" for name in wanted} <= set(report.figures)
    assert not any("ratio" in name for name in report.figures)
    (table,) = [each for each in report.tables if each.title == "Not measured"]
    assert [row[0] for row in table.rows] == list(PEERS)
    assert all("adrank bench train --setup" in str(row[1]) for row in table.rows)


def test_chosen_cells_alone_are_measured() -> None:
    logs = {name: shape.cells for name, shape in bench.LOGS.items()}
    assert bench.chosen(["256x2"], logs) == {"kuairand": ((256, 2),)}
    assert bench.chosen(["1024x1", "512x1"], logs) == {
        "kuairand": ((512, 1), (1_024, 1)),
        "full": ((512, 1),),
        "grouped": ((512, 1),),
    }
    with pytest.raises(ValueError, match=r"no cell '256x3' to measure; known: 1024x1, 1024x2, 256x1"):
        bench.chosen(["256x2", "256x3"], logs)


def test_ratios_are_against_the_better_peer(measuring: bench.Bench) -> None:
    rates = {"adrank": [300.0, 600.0], "a, library": [100.0, 100.0], "a, lean": [150.0, 150.0]}
    rows = measuring._cell("train.din.kuairand.b256.t1", 256, 1, rates)
    figures = measuring.report.figures
    assert figures["train.din.kuairand.b256.t1.ratio_best_peer"] == 3.0
    assert figures["train.din.kuairand.b256.t1.a-lean.samples_per_s"] == 150.0
    assert [row[5] for row in rows] == [1.0, 4.5, 3.0]
    measuring.variants = {who: (who, "") for who in rates}
    measuring.summary()
    assert figures["train.din.ratio_best_peer"] == 3.0
    assert figures["train.din.adrank.samples_per_s"] == 450.0


def test_everybody_takes_turns_and_a_peer_that_fails_is_out(measuring: bench.Bench, tmp_path: Path) -> None:
    for name in ("steady", "weak"):
        measuring.workers[name] = Counted(name, "").start(tmp_path)
        measuring.variants |= {f"{name}, {variant}": (name, variant) for variant in ("library", "lean")}
    measuring.workers["adrank"] = Counted("adrank", "").start(tmp_path)
    measuring.variants["adrank"] = ("adrank", "library")
    try:
        measuring.log("kuairand", tmp_path, ((256, 1),))
        assert measuring.report.figures["train.din.kuairand.b256.t1.ratio_best_peer"] == 0.5
        assert measuring.turn("weak, lean", tmp_path, 7, 1) is None
        assert measuring.failed == [("weak, lean", "RuntimeError: seven is too few")]
        assert set(measuring.variants) == {"steady, library", "steady, lean", "adrank"}
        with pytest.raises(OSError, match="our own training failed: RuntimeError: seven"):
            measuring.turn("adrank", tmp_path, 7, 1)
    finally:
        measuring.stop()


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_a_program_and_pinned_requirements(name: str) -> None:
    peer = PEERS[name]
    tree = ast.parse((PROGRAMS / peer.program).read_text())
    assert "turn" in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    lines = peer.requirements.read_text().split()
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", line) for line in lines)
    assert lines[0].startswith(f"{name}==")
    assert "torch==2.13.0" in lines


def test_what_the_peers_read_is_what_is_written(tmp_path: Path) -> None:
    """Their programs know the files only: names and sizes of fields."""
    write(simulate(64, 2, full=False), tmp_path, valid=8)
    told = json.loads((tmp_path / "fields.json").read_text())
    fields = {
        field.name: field.size for side in (schema().user, schema().context, schema().ad) for field in side.fields
    }
    assert told == {"fields": fields, "history": ["video", "author", "tag"], "longest": 50}


def test_only_peers_are_set_up(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no peer 'keras'; known: torch-rechub, deepctr-torch"):
        bench.run(arguments(tmp_path, "--setup", "keras"))


def test_a_version_that_is_not_there_is_a_question_mark(tmp_path: Path) -> None:
    assert version_in(sys.executable, "torch").startswith("2.13.0")
    assert version_in(sys.executable, "torch-rechub") == "?"
    assert version_in(str(tmp_path / "python"), "torch") == "?"
