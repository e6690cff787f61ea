"""onnxruntime tells nobody what it does: it leaves no trace of its telemetry behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOORS = ("service.scorer", "export.parity", "benchmarks.operators")


def left_behind(statement: str, home: Path, **environment: str) -> list[Path]:
    """Files below `home` afterwards. Of our environment only PATH is given: where CI or the like is set, onnxruntime is
    quiet by itself, and the doors would be proved by nothing."""
    given = {"PATH": os.environ["PATH"], "HOME": str(home)} | environment
    subprocess.run([sys.executable, "-c", statement], cwd=ROOT, env=given, check=True)
    return [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("door", DOORS)
def test_no_door_leaves_a_trace(door: str, tmp_path: Path) -> None:
    assert not left_behind(f"import {door}", tmp_path)


def test_without_us_it_would(tmp_path: Path) -> None:
    """When this fails, onnxruntime has changed, and bundle/no_telemetry.py may have lost its purpose."""
    assert left_behind("import onnxruntime", tmp_path, ORT_DISABLE_TELEMETRY="0")
