"""Workers are real processes that serve a bundle; their memory is what the system says."""

import argparse
from pathlib import Path

import pytest

from benchmarks import memory
from bundle.manifest import read_manifest

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux tells")


def test_what_several_workers_spend_is_held_against_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "ROOT", tmp_path)
    monkeypatch.setattr(memory, "REQUESTS", 3)
    monkeypatch.setattr(memory, "TINY", 300)
    monkeypatch.setattr(memory, "WORKERS", (1, 2))
    report = memory.run(argparse.Namespace(quick=False, ads=30_000, ad_vectors="int4"))
    figures = report.figures
    assert figures["memory.files_mib"] > 5
    assert figures["memory.bundle_1_workers_mib"] > figures["memory.tiny_1_workers_mib"] > 20
    for name in ("bundle", "tiny"):
        one, two = (figures[f"memory.{name}_{n}_workers_mib"] for n in (1, 2))
        assert one < two < 2.1 * one
    assert "memory.pss_ratio_2_workers" in figures
    assert 0 < figures["memory.checksums_s"] < figures["memory.open_s"]
    (bundle,) = tmp_path.glob("work-int4-light-30000-*")
    assert read_manifest(bundle).stages.prerank.vectors == "int4"
    (table,) = report.tables
    assert [row[0] for row in table.rows] == [1, 2]


def test_a_worker_that_ends_early_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a worker with .*nothing ended with exit code 1"):
        memory.measure(tmp_path / "nothing", 1)
