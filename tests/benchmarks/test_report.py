import json
from pathlib import Path

import pytest

from benchmarks.report import Report, Table, where


def filled() -> Report:
    report = Report("din", figures={"din.light.n500.speedup": 7.25})
    report.tables.append(Table("DIN", ("unit", "ms", "ads"), [("light", 1.23456, 20_000), ("paper", 12_345.6, 3)]))
    report.series["din.light.ours"] = [(50, 0.5), (100, 0.75)]
    return report


def test_tables_are_markdown_with_the_place_beside_them() -> None:
    text = filled().text({"machine": "some", "threads": "1"})
    assert "machine: some" in text
    assert "| unit  | ms     | ads    |" in text
    assert "| light | 1.23   | 20,000 |" in text
    assert "| paper | 12,346 | 3      |" in text
    assert "din.light.n500.speedup = 7.25" in text


def test_figures_are_flat_json(tmp_path: Path) -> None:
    filled().save(tmp_path / "f.json", where())
    read = json.loads((tmp_path / "f.json").read_text())
    assert read["figures"] == {"din.light.n500.speedup": 7.25}
    assert read["series"] == {"din.light.ours": [[50, 0.5], [100, 0.75]]}
    assert read["tables"][0]["rows"][1] == ["paper", 12345.6, 3]
    assert {"machine", "threads", "versions", "commit"} <= set(read["where"])
    assert "onnxruntime " in read["where"]["versions"]


def test_two_benchmarks_do_not_overwrite_each_other() -> None:
    report, other = filled(), filled()
    with pytest.raises(ValueError, match=r"din\.light\.n500\.speedup"):
        report.add(other)
    other.figures = {"features.redis_p50_ms": 0.2}
    report.add(other)
    assert set(report.figures) == {"din.light.n500.speedup", "features.redis_p50_ms"}
    assert len(report.tables) == 2
