"""The daily comparison trains on the rows that it says, and every network is measured on the same day."""

import argparse
from pathlib import Path

import polars as pl
import pytest
import yaml

from benchmarks import daily, pictures
from benchmarks.daily import WAYS, compare, cut, report
from tests.models.growing import GWEN, config, description, write_shop

DAY = daily.DAY_MS


def shop(folder: Path, days: float) -> Path:
    """The shop's log stretched over so many days, and a configuration for it."""
    raw = write_shop(folder / "raw")
    log = pl.read_parquet(raw / "log.parquet")
    stretched = (pl.col("time") * int(days * DAY) // len(log) + 1_000).cast(pl.Int64)
    log.with_columns(time=stretched).write_parquet(raw / "log.parquet")
    spec = description(1, None).model_dump(mode="json")
    (folder / "shop.yaml").write_text(yaml.safe_dump(spec))
    (folder / "gwen.yaml").write_text(yaml.safe_dump(config(GWEN, epochs=3, evaluations=2).model_dump(mode="json")))
    return raw


def test_days_are_cut_from_the_first_row_on(tmp_path: Path) -> None:
    log = cut(tmp_path / "gwen.yaml", shop(tmp_path, 4.2))
    assert log.starts[:-1] == [1_000 + number * DAY for number in range(4)]
    assert 1_000 + 4 * DAY < log.starts[-1] < 1_000 + 4.2 * DAY
    assert (log.config.training.epochs, log.config.training.evaluations) == (1, 1)


def test_each_way_has_the_rows_that_it_says(tmp_path: Path) -> None:
    days = compare(cut(tmp_path / "gwen.yaml", shop(tmp_path, 5)), tmp_path / "work", seed=1)
    assert [day["scratch"].rows for day in days] == [1_200, 1_800, 2_400]
    assert [day["continued"].rows for day in days] == [600, 600, 600]
    assert [day["stale"].rows for day in days] == [0, 0, 0]
    assert len({each.auc for day in days for each in day.values()}) == 9
    assert not (tmp_path / "work/data").exists()

    found = report(days)
    mean = sum(day["continued"].auc for day in days) / 3
    assert found.figures["daily.continued.auc"] == pytest.approx(mean)
    gain = mean - found.figures["daily.scratch.auc"]
    assert found.figures["daily.gain.auc"] == pytest.approx(gain)
    assert found.figures["daily.scratch.seconds"] == pytest.approx(sum(day["scratch"].seconds for day in days))
    (table,) = found.tables
    assert [row[0] for row in table.rows] == [3, 4, 5, "all"]
    assert table.rows[-1][1:3] == (5_400, 1_800)
    assert [len(row) for row in table.rows] == [len(table.columns)] * 4

    found.save(tmp_path / "daily.json", {})
    drawn = pictures.run(argparse.Namespace(files=[tmp_path / "daily.json"], out=tmp_path))
    assert drawn.tables[0].rows == [("daily-auc", 3), ("daily-seconds", 3)]
    text = (tmp_path / "daily-auc.svg").read_text()
    assert all(f"<!-- {label} -->" in text for label in WAYS.values())
    assert "<!-- AUC -->" in text


def test_too_few_days_are_refused(tmp_path: Path) -> None:
    raw = shop(tmp_path, 2.2)
    arguments = argparse.Namespace(quick=False, data=raw, config=tmp_path / "gwen.yaml", seed=1, days=None)
    with pytest.raises(ValueError, match=r"raw: its rows span 2.2 days, at least 3 are needed"):
        daily.run(arguments)


def test_a_table_of_counts_is_refused(tmp_path: Path) -> None:
    raw = shop(tmp_path, 3)
    (tmp_path / "q.yaml").write_text(yaml.safe_dump(config({"kind": "qscore"}).model_dump(mode="json")))
    with pytest.raises(ValueError, match=r"q\.yaml: a Qscore is counted"):
        daily.run(argparse.Namespace(quick=False, data=raw, config=tmp_path / "q.yaml", seed=1, days=None))
