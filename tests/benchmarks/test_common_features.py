"""Both forms of the log hold the same impressions, and the benchmark measures all of its cells."""

import argparse
from pathlib import Path

import torch

from benchmarks.common_data import described, simulate, write
from benchmarks.common_features import run
from benchmarks.common_worker import BATCH
from models.data.batches import Batch, batches


def impressions(batch: Batch) -> list[tuple[object, ...]]:
    """Each candidate with the features of its user, in an order of its own."""
    behaviours = batch.histories["clicks"].flatten(1)
    whole = torch.cat([batch.user, batch.context, behaviours], dim=1)[batch.request]
    table = torch.cat([whole, batch.ads, batch.labels.long().unsqueeze(1)], dim=1)
    return sorted(map(tuple, table.tolist()))


def test_flat_rows_are_the_same_impressions(tmp_path: Path) -> None:
    log, found = simulate(300, 5), {}
    for form in ("grouped", "flat"):
        write(log, tmp_path / form, flat=form == "flat")
        (found[form],) = batches(described(tmp_path / form, 60, 300), "train", 300, seed=1)
    assert len(found["grouped"].user) == 60
    assert len(found["flat"].user) == 300
    assert impressions(found["grouped"]) == impressions(found["flat"])


def test_every_cell_is_measured() -> None:
    """Each cell is a process, most of whose time torch takes to load: one network stands for both."""
    report = run(argparse.Namespace(quick=True, impressions=0, shown=[30], models=["mlr"]))
    assert set(report.figures) == {"common.mlr.30.speedup", "common.mlr.30.memory", "common.30.bytes"}
    assert [row[:3] for row in report.tables[1].rows] == [("MLR", BATCH["mlr"], 30)]
    assert report.figures["common.30.bytes"] < 1 / 3
