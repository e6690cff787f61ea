"""Tables are read and vectors multiplied as they are stored, and the figures say what that takes and loses."""

import argparse

import pytest

from benchmarks import values


def test_fewer_bytes_lose_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "QUICK_ROWS", 12_000)
    monkeypatch.setattr(values, "USERS", 4)
    report = values.run(argparse.Namespace(quick=True))
    found = report.figures
    assert [found[f"values.table.{each}.row_bytes"] for each in ("fp32", "fp16", "int8", "int4")] == [128, 64, 36, 20]
    assert [found[f"values.vectors.{each}.row_bytes"] for each in ("fp32", "fp16", "int8", "int4")] == [132, 66, 37, 21]
    recall = [found[f"values.vectors.{each}.recall"] for each in ("fp32", "fp16", "int8", "int4")]
    assert recall[0] == 1
    assert recall == sorted(recall, reverse=True)
    assert 0.5 < recall[3] < recall[2] < 1
    assert all(value > 0 for name, value in found.items() if name.endswith(("_us", ".ms")))
    assert [len(table.rows) for table in report.tables] == [4, 4]
