import argparse
from pathlib import Path

import pytest

from benchmarks import pictures
from benchmarks.report import Report


def saved(folder: Path) -> Path:
    report = Report("some")
    for name in ("ours", "usual"):
        report.series[f"din.light.candidates.{name}"] = [(50, 0.5), (500, 2.0)]
    report.series["cascade.waterfall.finerank"] = [(1.5, 2.0)]
    report.save(folder / "some.json", {})
    return folder / "some.json"


def test_pictures_are_drawn_of_the_curves_that_are_there(tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    report = pictures.run(argparse.Namespace(files=[saved(tmp_path)], out=out))
    assert sorted(path.name for path in out.iterdir()) == ["cascade-waterfall.svg", "din-light-candidates.svg"]
    assert report.tables[0].rows == [("din-light-candidates", 2), ("cascade-waterfall", 1)]
    text = (out / "din-light-candidates.svg").read_text()
    assert "<!-- usual -->" in text
    assert "<!-- candidates -->" in text


def test_the_same_curves_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pictures.run(argparse.Namespace(files=[saved(tmp_path)], out=tmp_path / name))
    assert [path.read_bytes() for path in sorted((tmp_path / "a").iterdir())] == [
        path.read_bytes() for path in sorted((tmp_path / "b").iterdir())
    ]


def test_a_file_without_curves_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(ValueError, match=r"x\.json: no figures"):
        pictures.run(argparse.Namespace(files=[tmp_path / "x.json"], out=tmp_path))
