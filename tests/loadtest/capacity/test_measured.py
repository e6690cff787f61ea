"""What a file of a load test must have."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtest.capacity.errors import CapacityError
from loadtest.capacity.measured import read_measured
from loadtest.histograms import Histogram
from tests.loadtest.capacity.services import load_test


def test_it_is_read(tmp_path: Path) -> None:
    found = read_measured(load_test(tmp_path / "found.json"))
    assert found.test.bundle == "arithmetic"
    assert len(found.turns_s) > 900
    assert found.busy_s == pytest.approx(0.004, rel=0.01)
    assert found.finerank_share == pytest.approx(0.5, rel=0.01)


def test_how_slow_it_is_after_a_pause_is_what_the_steps_say(tmp_path: Path) -> None:
    """Steps at 0.3, 0.5, 0.7, … of what it can do, some of them beyond it."""
    path = load_test(tmp_path / "found.json")
    read = json.loads(path.read_text())
    for step in read["knee"]["steps"]:
        step["turn_ms"]["mean"] = 600 / step["rate"]
    path.write_text(json.dumps(read))
    found = read_measured(path).slowness
    assert found[0][0] == pytest.approx(0.3, rel=0.02)
    assert found[0][1] == pytest.approx(600 / (0.3 * 250) / 3, rel=0.02)
    assert found[-1] == (1.0, 1.0)
    shares = [share for share, _ in found]
    assert shares == sorted(set(shares))
    read["knee"]["steps"][0]["turn_ms"] |= {"count": 99, "mean": 0.0}
    path.write_text(json.dumps(read))
    assert read_measured(path).slowness == found[1:]


def changed(change: Callable[[Any], None]) -> Callable[[Any], Any]:
    def apply(read: Any) -> Any:
        change(read)
        return read

    return apply


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda read: [], "no knee and no saturated and no footprint: what is needed is the --json"),
        (changed(lambda read: read.pop("saturated")), "found.json: no saturated: what is needed"),
        (changed(lambda read: read.update(knee=None)), "no knee: what is needed"),
        (changed(lambda read: read["saturated"].update(achieved_rate=0)), "saturated.achieved_rate: Input should be"),
        (changed(lambda read: read["saturated"].update(turns=None)), "saturated.turns: Input should be a valid string"),
        (
            changed(lambda read: read["saturated"].update(generator_processor=0.97)),
            "the generator used 97% of a core in the closed loop, 90% allowed",
        ),
        (
            changed(lambda read: read["saturated"].update(turns=Histogram.of([1.0] * 99).encode())),
            "99 turns in the closed loop, 100 at least",
        ),
        (
            changed(lambda read: read["saturated"].update(achieved_rate=400)),
            "a turn takes 3.00 ms, but 1 processes answered a request every 2.50 ms",
        ),
    ],
)
def test_what_the_model_cannot_be_made_of_is_named(tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    path = load_test(tmp_path / "found.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CapacityError) as raised:
        read_measured(path)
    assert words in str(raised.value)
    assert str(path) in str(raised.value)


def test_no_json_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(CapacityError, match=r"x\.json: not JSON"):
        read_measured(tmp_path / "x.json")
