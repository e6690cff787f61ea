"""The two exports that are compared are of the same network, and the floor counts what is computed."""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import command, din
from benchmarks.floor import SIZE, GemmRate
from benchmarks.work import EMBEDDING, HISTORY, UNITS, make_din, make_request, multiply_adds, work_schema


class Exported:
    """Both graphs of each unit, and the folder that holds them."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.folder, self.graphs = folder, {unit: din.export_both(folder, unit) for unit in UNITS}

    def again(self, folder: Path, unit: str) -> din.Graphs:
        """What `export_both` gives, without exporting once more."""
        for file in self.folder.glob(f"{unit}*"):
            shutil.copy(file, folder)
        return self.graphs[unit]


@pytest.fixture(scope="module")
def exported_both(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(tmp_path_factory.mktemp("din"))


@pytest.mark.parametrize("unit", UNITS)
def test_both_exports_score_alike(unit: str, exported_both: Exported) -> None:
    graphs = exported_both.graphs[unit]
    for n, history in ((1, 3), (40, HISTORY), (33, 7)):
        request = make_request(work_schema(din.ADS), n, seed=n, history=history)
        (ours,), (usual,) = graphs.ours.run(None, request.feeds()), graphs.tiled.run(None, request.tiled())
        assert ours.shape == (n,)
        assert np.abs(ours - usual).max() < 1e-5
        assert n == 1 or np.ptp(ours) > 1e-4


def test_the_standard_work_has_the_stated_sizes() -> None:
    network = make_din(work_schema(1000), "light")
    assert network.user.dimension == network.ad.dimension == 2 * EMBEDDING
    assert [layer.out_features for layer in network.mlp.layers] == [200, 80]
    # one candidate, one behaviour: 64 x 16, 16 x 8, 8, then 200 of the interest, 64 x 200, 200 x 80, 80
    assert multiply_adds("light", 1, history=1) == 1024 + 128 + 8 + 200 + 12_800 + 16_000 + 80
    assert multiply_adds("light", 500) == 500 * (50 * 1360 + 28_880)


def test_the_floor_is_the_time_of_that_many_multiply_adds(tmp_path: Path) -> None:
    gemm = GemmRate(tmp_path)
    assert np.asarray(gemm.run()).shape == (1, SIZE, SIZE)
    assert gemm.floor_ms(2 * SIZE**3, product_ms=5.0) == 10.0


def test_a_report_has_the_promised_figures(exported_both: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(din, "CANDIDATES", (8,))
    monkeypatch.setattr(din, "export_both", exported_both.again)
    report = din.run(argparse.Namespace(quick=True))
    for unit in UNITS:
        key = f"din.{unit}.n8"
        assert report.figures[f"{key}.deviation"] < 1e-5
        ratio = report.figures[f"{key}.tiled_ms"] / report.figures[f"{key}.ours_ms"]
        assert 0.2 < report.figures[f"{key}.speedup"] / ratio < 5
        assert report.figures[f"{key}.floor_ratio"] > 0
    comparison = next(table for table in report.tables if table.title.startswith("DIN"))
    assert len(comparison.rows) == len(UNITS)


def test_every_benchmark_is_documented_and_takes_the_common_options(capsys: pytest.CaptureFixture[str]) -> None:
    for name in command.BENCHES:
        with pytest.raises(SystemExit) as left:
            command.parser().parse_args([name, "--help"])
        assert left.value.code == 0
        shown = capsys.readouterr().out
        assert "--quick" in shown
        assert "--json FILE" in shown
    assert set(command.IN_ALL) <= set(command.BENCHES)
