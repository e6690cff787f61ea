"""`adrank capacity`: what it prints and writes, and one line where nothing can be said."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loadtest.capacity.command import MEASURED, main
from loadtest.capacity.measured import read_measured
from loadtest.capacity.wanted import Wanted
from tests.loadtest.capacity.services import load_test

FEW = ["--rps", "10000", "--p99", "25ms", "--requests", "2000"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(load_test(tmp_path_factory.mktemp("capacity") / "found.json"))


def test_the_plan_is_printed_written_and_drawn(tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, picture = tmp_path / "plan.json", tmp_path / "plan.svg"
    asked = [*FEW, "--zones", "2", "--measured", file, "--json", str(found), "--picture", str(picture)]
    assert main(asked) == 0
    printed, written = capsys.readouterr().out, json.loads(found.read_text())
    planned = written["plan"]
    assert re.search(
        rf"^replicas +{planned['replicas']}  {planned['replicas_a_zone']} in each of 2 zone", printed, re.M
    )
    assert re.search(rf"^cores +{planned['cores']:,} ", printed, re.M)
    for words in ("Redis memory", "Redis shards", "a zone lost", "least-requests", "round-robin"):
        assert words in printed
    sources = {each["name"]: each["source"] for each in written["assumptions"]}
    assert sources["rps"] == sources["zones"] == "option"
    assert sources["workers"] == "default"
    assert sources["own-memory"] == sources["turn"] == "measured"
    assert sources["arrivals"] == "model"
    assert set(sources) >= {name.replace("_", "-") for name in Wanted.model_fields}
    for name in sources:
        assert re.search(rf"^  {re.escape(name)} ", printed, re.M), name
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rps", "0", "--p99", "20ms"], "--rps 0: Input should be greater than 0"),
        (["--rps", "1e4", "--p99", "20"], "--p99 20: '20' is no number with a unit (us, ms, s), such as 20ms"),
        (["--rps", "1e4", "--p99=-1ms"], "--p99 -1ms: '-1ms' is no number with a unit"),
        ([*FEW, "--shard-memory", "3 pages"], "--shard-memory 3 pages: '3 pages' is no number with a unit"),
        ([*FEW, "--cache-hits", "1.5"], "--cache-hits 1.5: Input should be less than or equal to 1"),
        ([*FEW, "--balancing", "fair"], "--balancing fair: Input should be 'random', 'round-robin' or"),
        ([*FEW, "--zones", "2", "--zones-lost", "2"], "zones_lost is 2, it must be below zones, 2"),
        (["--rps", "1e4", "--p99", "3ms"], "p99 3 ms cannot be reached, however many processes there are: 1 % of the"),
        ([*FEW, "--measured", "{folder}/empty.json"], "empty.json: no knee and no saturated"),
    ],
)
def test_what_nothing_can_be_said_of_is_one_line_and_2(
    tmp_path: Path, file: str, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.json").write_text("{}")
    asked = [each.format(folder=tmp_path) for each in arguments]
    assert main([*([] if "--measured" in asked else ["--measured", file]), *asked]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("adrank capacity: ")
    assert words in line


def test_a_load_test_comes_with_the_project() -> None:
    found = read_measured(MEASURED)
    assert found.test.bundle == "demo"
    assert found.test.knee.rate
    assert found.test.footprint.own_bytes
