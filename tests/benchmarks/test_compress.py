"""`adrank bench compress` at its small size: what it writes, and that the plain export computes what ours does."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from benchmarks import compress
from benchmarks.tiled import export_tiled, tiled
from export.assemble import Trained
from export.parity import common_of, feeds_of, golden_requests, runner
from export.request_graph import serving_graph
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from models.networks.din import Din


def test_the_plain_export_computes_what_is_served(trained: Trained, tmp_path: Path) -> None:
    din, data = trained.finerank.network(), trained.data
    assert isinstance(din, Din)
    inputs = common_inputs(din.schema) | candidate_inputs(din.schema)
    ours = runner(tmp_path, export_graph(serving_graph(din), inputs, ["logits"], tmp_path / "ours.onnx"))
    usual = runner(tmp_path, export_tiled(din, tmp_path / "tiled.onnx"))
    for batch, ads in golden_requests(data, "test", 4, 20, seed=0):
        feeds = feeds_of(common_of(batch, data), ads, data)
        np.testing.assert_allclose(usual(tiled(feeds))[0], ours(feeds)[0], rtol=0, atol=2e-5)


def test_quick_measures_the_simulated_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = compress.QUICK.model_copy(update={"ads": 200, "users": 150, "impressions": 8_000})
    monkeypatch.setattr(compress, "QUICK", small)
    monkeypatch.setattr(compress, "REQUESTS", 2)
    asked = argparse.Namespace(quick=True, kuairand=None, seeds=[1, 2], out=tmp_path)
    report = compress.run(asked)
    figures = report.figures
    assert {name.partition(".")[0] for name in figures} == {"marketplace"}
    for name in ("bytes_ratio", "macs_ratio", "dgauc", "dgauc_low", "p50_ratio"):
        assert np.isfinite(figures[f"marketplace.{name}"])
    assert figures["marketplace.macs_ratio"] > 5
    assert figures["marketplace.dgauc_low"] <= figures["marketplace.dgauc"] <= figures["marketplace.dgauc_high"]
    for own in ("", "own."):
        gained, control = (figures[f"marketplace.{own}{side}dauc"] for side in ("", "control."))
        assert control >= -0.2
        assert figures[f"marketplace.{own}against_control.dauc"] == pytest.approx(gained - control)
    assert [row[0] for row in report.tables[0].rows] == ["original", "prune", "factorise", "values", "fine_tune"]
