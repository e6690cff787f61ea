"""Checkpoints and options that `adrank evaluate` and `adrank export` cannot use: refused as bad data are."""

from pathlib import Path

import pytest

from export.assemble import Trained
from export.command import main as export
from models.evaluate import main as evaluate
from tests.end_to_end.spoilt import check, code_of

EVALUATE = {
    "no checkpoint": (["nowhere"], ("nowhere/config.json", "cannot be read")),
    "other data": (["FINE", "--prepared", "EMPTY"], ("holds no prepared data", "fingerprint")),
    "no such split": (["FINE", "--split", "future"], ("--split", "'future'", "'valid'")),
    "no such field": (["FINE", "--by", "tab"], ("'tab'", "scene")),
    "gates of a DIN": (["FINE", "--gates"], ("a din has no gates",)),
    "stages exchanged": (["FINE", "--funnel", "QSCORE", "PRE"], ("a Qscore is a table",)),
    "a stage of 0": (["FINE", "--funnel", "PRE", "QSCORE", "--prerank", "0"], ("prerank is 0", "at least 1")),
    "no folder for a file": (["FINE", "--json", "nowhere/m.json"], ("--json", "no folder nowhere")),
}
EXPORT = {
    "no checkpoint": ({"finerank": "nowhere"}, ("nowhere/config.json", "cannot be read")),
    "a table as fine-ranker": ({"finerank": "QSCORE"}, ("a Qscore is a table",)),
    "no two towers": ({"prerank": "FINE"}, ("holds a din", "two towers")),
    "no Qscore": ({"qscore": "PRE"}, ("holds a dqm", "a qscore is needed")),
    "no prepared data": ({"prepared": "EMPTY"}, ("holds no prepared data", "fingerprint")),
    "an id with a slash": ({"id": "a/b"}, ("bundle_id", "'a/b'")),
    "a stage of 0": ({"keep-prerank": "0"}, ("prerank", "0", "greater than 0")),
    "users below 0": ({"users": "-1"}, ("users", "-1", "greater than or equal to 0")),
    "a precision that is none": ({"precision": "int4"}, ("--precision", "'int4'", "'int8'")),
    "a file as folder": ({"out": "FILE"}, ("--out", "afile", "a folder is needed")),
    "no folder for a file": ({"json": "nowhere/m.json"}, ("--json", "no folder nowhere")),
}


@pytest.fixture
def places(trained: Trained, tmp_path: Path) -> dict[str, str]:
    """What the tables above call places by."""
    (tmp_path / "afile").write_text("")
    (tmp_path / "empty").mkdir()
    checkpoints = {"FINE": trained.finerank, "PRE": trained.prerank, "QSCORE": trained.qscore}
    found = {name: str(each.folder) for name, each in checkpoints.items()}
    return found | {"EMPTY": str(tmp_path / "empty"), "FILE": str(tmp_path / "afile")}


@pytest.mark.parametrize("name", EVALUATE)
def test_evaluate(name: str, places: dict[str, str], trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    given, parts = EVALUATE[name]
    arguments = [places.get(each, each) for each in given]
    if "--prepared" not in given:
        arguments += ["--prepared", str(trained.data.folder)]
    check(code_of(evaluate, [*arguments, "--threads", "1"]), capsys, *parts)


@pytest.mark.parametrize("name", EXPORT)
def test_export(
    name: str, places: dict[str, str], trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed, parts = EXPORT[name]
    usual = {"finerank": "FINE", "prerank": "PRE", "qscore": "QSCORE", "prepared": str(trained.data.folder)}
    usual |= {"out": str(tmp_path / "bundles"), "id": "any"}
    arguments = [text for key, value in (usual | changed).items() for text in (f"--{key}", places.get(value, value))]
    check(code_of(export, arguments), capsys, *parts)
    assert not list(tmp_path.glob("bundles/**/*"))
    assert Path(places["FILE"]).is_file()
