"""The whole of it, small: our service and plain FastAPI, proved and measured."""

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.http import bench, ceiling, overhead
from benchmarks.http.material import Material, MismatchError
from benchmarks.http.process import two_cores
from benchmarks.http.rounds import Plan
from benchmarks.http.servers import OUR_PATH, PEERS, Body, encoded, same
from benchmarks.report import Report

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="the server and the load need a core each")
SHORT = Plan(rounds=2, closed_s=0.2, arrivals={40: 5, 80: 10}, open_s=0.2)


def made(peers: list[str], environments: Path) -> bench.Bench:
    return bench.Bench(Report("http"), [PEERS[name] for name in peers], environments, two_cores())


def test_servers_are_proved_measured_and_ended(material: Material, tmp_path: Path) -> None:
    one = made(["fastapi", "ray"], tmp_path / "environments")
    one.phase(material, tmp_path / "scratch", "light", "tiled", SHORT)
    one.who()
    figures = one.report.figures
    for name in ("adrank", "fastapi"):
        assert figures[f"http.light.throughput.{name}"] > 0
        assert 0 < figures[f"http.light.p50_ms.{name}"] <= figures[f"http.light.p99_ms.{name}"]
        assert figures[f"http.light.cpu_ms.{name}"] > 0
        assert len(one.report.series[f"http.light.rate.p99.{name}"]) == 2
    ratio = figures["http.light.throughput.adrank"] / figures["http.light.throughput.fastapi"]
    assert 0.2 < figures["http.light.throughput_ratio.fastapi"] / ratio < 5
    assert figures["http.light.p99_ratio.best"] == figures["http.light.p99_ratio.fastapi"]
    text = one.report.text({})
    assert "adrank bench http --setup ray" in text
    assert one.memory.keys() == {"adrank", "fastapi"}
    assert not _left_behind(tmp_path)


def test_a_peer_with_other_scores_ends_the_benchmark(material: Material, tmp_path: Path) -> None:
    """Not the peer alone: its weights would be others, and so all figures worthless."""
    weights = tmp_path / "weights"
    shutil.copytree(material.weights, weights)
    np.save(weights / "fields.npy", np.load(weights / "fields.npy")[::-1])
    wrong = replace(material, weights=weights)
    with pytest.raises(MismatchError, match="fastapi: scores of body 0 differ by"):
        made(["fastapi"], tmp_path).phase(wrong, tmp_path / "scratch", "light", "tiled", SHORT)
    assert not _left_behind(tmp_path)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_a_request_with_redis_is_compared_with_scoring_in_process(material: Material, tmp_path: Path) -> None:
    found = overhead.measure_overhead(material, two_cores(), tmp_path, rounds=2, seconds=0.2)
    assert len(found.scoring) == 2
    for each in (found.requests, found.rates):
        assert {name: len(times) for name, times in each.items()} == dict.fromkeys(overhead.OPTIONS, 2)
    assert min(found.scoring) > 0
    assert min(found.rates[overhead.READ]) > 0
    by_round = [a / b for a, b in zip(found.requests[overhead.READ], found.scoring, strict=True)]
    assert found.ratio(overhead.READ) == pytest.approx(sum(by_round) / 2)
    assert not _left_behind(tmp_path)


def test_scoring_in_process_gives_the_models_scores(material: Material) -> None:
    work = overhead.Scoring(material)
    for i in range(len(material.expected)):
        material.check("in process", i, work.once(i))


def test_without_redis_a_note_says_what_is_missing(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    one = made([], tmp_path)
    one.overhead(material, tmp_path / "scratch", rounds=1)
    assert one.report.notes == ["http.light.overhead_ratio is not measured: redis-server is not installed"]


def test_the_generator_has_a_ceiling_far_above_what_is_measured(material: Material, tmp_path: Path) -> None:
    found = ceiling.measure_ceiling(encoded(OUR_PATH, same, material.bodies), two_cores(), tmp_path, seconds=0.3)
    assert set(found) == {1, 4}
    assert all(rate > 0 for rate, _ in found.values())


def test_a_setup_measures_nothing(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    arguments = parser.parse_args(["--setup", "fastapi", "--environments", str(tmp_path)])
    report = bench.run(arguments)
    assert report.notes == ["fastapi: runs in this environment"]
    assert report.figures == {}


def _left_behind(folder: Path) -> list[str]:
    """Commands that still name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if entry.readlink().is_relative_to(folder):
                found.append(entry.parent.name)
        except OSError:
            continue
    return found


def test_a_body_is_a_plain_request(material: Material) -> None:
    body: Body = material.bodies[0]
    assert overhead.stored(body) == {name: body[name] for name in ("user_id", "context", "ads")}
