"""The model beside a load test whose service is arithmetic, and a real Redis filled and asked."""

import argparse
import shutil
from pathlib import Path

import pytest

from benchmarks import capacity, shard
from benchmarks.features import make_record
from bundle.record import pack
from tests.loadtest.capacity.services import TURN_MS, load_test

needs_tools = pytest.mark.skipif(
    not (shutil.which("redis-server") and shutil.which("redis-benchmark")), reason="needs Redis and its tools"
)


def arguments(*more: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    capacity.add_arguments(parser)
    chosen = parser.parse_args(more)
    chosen.quick = True
    return chosen


@needs_tools
def test_knees_and_steps_stand_side_by_side(tmp_path: Path) -> None:
    file = load_test(tmp_path / "found.json", seconds=10.0)
    report = capacity.run(arguments("--measured", str(file)))
    figures = report.figures
    assert abs(figures["capacity.error"]) < 0.15
    assert figures["capacity.error"] == pytest.approx(
        figures["capacity.simulated_knee"] / figures["capacity.measured_knee"] - 1
    )
    knees, steps, redis = report.tables
    assert len(knees.rows) == len(redis.rows) == 1
    rates = [float(row[0]) for row in steps.rows]
    assert rates == sorted(rates)
    below = [row for row in steps.rows if float(row[0]) < 0.9 * figures["capacity.measured_knee"]]
    assert below
    for row in below:
        assert float(row[1]) == pytest.approx(TURN_MS, rel=0.01)
        assert float(row[3]) == pytest.approx(float(row[2]), rel=0.2)
        assert float(row[7]) == pytest.approx(float(row[6]), rel=0.4)


@needs_tools
def test_a_user_takes_more_than_its_record() -> None:
    found = shard.measure(2000, 4000)
    assert found.record_bytes == pytest.approx(len(pack(make_record(shard.ADS))), rel=0.02)
    assert found.record_bytes < found.user_bytes < 1.6 * found.record_bytes
    assert found.reads > 100


def test_a_load_test_without_a_knee_is_refused(tmp_path: Path) -> None:
    file = load_test(tmp_path / "found.json")
    file.write_text(file.read_text().replace('"bounded": true', '"bounded": false'))
    with pytest.raises(ValueError, match="found no knee"):
        capacity.run(arguments("--measured", str(file)))


def test_a_load_test_that_cannot_be_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.yaml"):
        capacity.run(arguments("--slo", str(tmp_path / "none.yaml")))
    (tmp_path / "slo.yaml").write_text("rate: many")
    with pytest.raises(OSError, match="could not be run"):
        capacity.run(arguments("--slo", str(tmp_path / "slo.yaml")))
