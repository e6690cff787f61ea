"""The toy problem is measured and drawn."""

import argparse
from pathlib import Path

from benchmarks.diamond import impressions, points, run


def test_half_of_the_square_is_the_diamond() -> None:
    batch = impressions(points(10_000, seed=3))
    assert 0.48 < batch.labels.mean() < 0.52
    assert batch.ad_numbers.abs().max() <= 1


def test_it_is_measured_and_drawn(tmp_path: Path) -> None:
    report = run(argparse.Namespace(quick=True, out=tmp_path))
    assert report.figures["diamond.mlr.auc"] > report.figures["diamond.lr.auc"]
    assert set(report.figures) == {f"diamond.{n}.{what}" for n in ("lr", "mlr") for what in ("accuracy", "auc")}
    assert (tmp_path / "mlr-diamond.svg").read_text().startswith("<?xml")
