import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bundle.command import main
from bundle.folder import write_bundle
from bundle.golden import save_golden
from tests.bundle import small


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.small_bundle(tmp_path)


def test_show_says_what_the_bundle_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(folder)]) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert "bundle   small-1 (format 2)" in printed
    assert "2025-01-01T00:00:00Z" in printed
    assert "torch 2.13.0" in printed
    assert "city (categorical, 4 ids), age (number)" in printed
    assert "clicks: the last 4 ads by category, appended by click" in printed
    assert ["retrieval", "keeps", "100;", "1", "cells,", "posting", "lists:", "category"] in lines
    assert "targeted by context: scene" in printed
    assert "keeps 50; of click" in printed
    assert "keeps 10; din of like, " in printed
    assert ["din", "0.7500", "0.6250"] in lines
    assert ["qscore", "0.5000", "-"] in lines
    for name in ("query.onnx", "ads/vectors.npy", "golden.npz"):
        assert [f"{(folder / name).stat().st_size:,}", name] in lines


def test_show_writes_flat_figures(folder: Path, tmp_path: Path) -> None:
    assert main(["show", str(folder), "--json", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["bundle.ads"] == 3
    assert figures["bundle.quality.din.auc"] == 0.75
    assert figures["bundle.finerank.keep"] == 10
    assert figures["bundle.bytes"] == sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    )


def test_verify_says_that_it_is_whole(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("small-1 is whole: ")


@pytest.mark.parametrize("action", ["show", "verify"])
def test_no_bundle_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str) -> None:
    assert main([action, str(tmp_path / "nothing")]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "nothing/manifest.json: cannot be read: No such file or directory" in printed.err
    assert len(printed.err.splitlines()) == 1


def test_verify_names_the_damaged_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray((folder / "finerank.onnx").read_bytes())
    content[0] ^= 1
    (folder / "finerank.onnx").write_bytes(content)
    assert main(["verify", str(folder)]) == 1
    assert "finerank.onnx: sha256" in capsys.readouterr().err


def test_verify_refuses_arrays_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shorten(folder: Path) -> None:
        np.save(folder / "ads/bids.npy", np.zeros(2, dtype=np.float32))

    assert main(["verify", str(small.small_bundle(tmp_path, shorten))]) == 1
    assert "ads/bids.npy: float32[2], the manifest needs float32[5]" in capsys.readouterr().err


def test_verify_reads_the_golden_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def garble(folder: Path) -> None:
        (folder / "golden.npz").write_bytes(b"no archive")

    assert main(["verify", str(small.small_bundle(tmp_path, garble))]) == 1
    assert "golden.npz: cannot be read" in capsys.readouterr().err
    fewer = small.small_bundle(tmp_path, lambda folder: save_golden(folder, small.golden_rows(1)), "small-2")
    assert main(["verify", str(fewer)]) == 1
    assert "golden.npz: 1 requests, the manifest says 2" in capsys.readouterr().err


def test_verify_wants_the_files_that_the_stages_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fill(folder: Path) -> None:
        small.fill(folder)
        (folder / "query.onnx").unlink()

    assert main(["verify", str(write_bundle(tmp_path, small.manifest(), fill))]) == 1
    assert "the stages name 'query.onnx', which is not among the files" in capsys.readouterr().err


def test_bad_usage_is_exit_code_2() -> None:
    for argv in ([], ["paint", "x"], ["show"]):
        with pytest.raises(SystemExit) as stopped:
            main(argv)
        assert stopped.value.code == 2


def test_the_contract_needs_only_numpy_and_pydantic() -> None:
    code = (
        "import sys, bundle.command; "
        "heavy = {'torch', 'onnx', 'onnxruntime', 'faiss', 'polars', 'pyarrow', 'fastapi', 'redis'};"
        "heavy |= {'models', 'service', 'export'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
