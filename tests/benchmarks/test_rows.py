"""Every method is measured in both ways, with the rows and bytes that it stores; what it cannot reach is left out."""

import argparse
import math
from pathlib import Path

import pytest

from benchmarks import pictures, rows
from models.marketplace.spec import MarketplaceSpec

SMALL = MarketplaceSpec(seed=1, ads=300, users=100, impressions=6_000)


def test_every_method_in_both_ways(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = rows._data(SMALL, tmp_path)
    found = rows.compare(data, tmp_path, [4, 30], seed=1)
    said = {(each.method, each.ratio, each.way) for each in found}
    reached = {(m, r) for m in rows.METHODS for r in (4.0, 30.0)} - {("quotient_remainder", 30.0)}
    nothing = {("none", math.inf, way) for way in rows.LABELS}
    assert said == {("full", 1.0, "scratch")} | nothing | {(m, r, way) for m, r in reached for way in rows.LABELS}
    assert "left out: step quotient_remainder: table 'ad_id' has" in capsys.readouterr().err
    known = found[0].rows - 2
    assert found[0].bytes == found[0].rows * 8 * 4
    for each in found[1:]:
        if each.method in ("hash", "multi_hash", "cut"):
            assert each.rows == 2 + round(known / each.ratio)
            assert each.bytes == each.rows * 32 + (known + 2) * (each.method == "cut")
        elif each.method == "none":
            assert each.rows == each.bytes == 0
        else:
            assert each.rows <= 2 + known / each.ratio
    again = rows.compare(rows._data(SMALL, tmp_path), tmp_path, [4, 30], seed=1)
    assert again == found, "finished runs are taken up"

    report = rows.report(found)
    assert report.figures["rows.hash.4.start.dauc"] == pytest.approx(
        report.figures["rows.hash.4.start.auc"] - report.figures["rows.full.auc"]
    )
    assert len(report.tables[0].rows) == len(found)
    assert report.figures["rows.none.start.auc"] == found[-2].auc
    report.save(tmp_path / "rows.json", {})
    drawn = pictures.run(argparse.Namespace(files=[tmp_path / "rows.json"], out=tmp_path))
    assert drawn.tables[0].rows == [("rows-start", 5), ("rows-scratch", 5)]
