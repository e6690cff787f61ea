import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.data.command import main
from models.data.prepare import prepare
from models.data.prepared import open_prepared
from models.data.spec import read_spec

CONFIGS = sorted((Path(__file__).parents[3] / "models/configs/data").glob("*.yaml"))

SPEC = """
name: tiny
source: table
files: {log: log.csv}
label: click
user: user
ad: ad
time: time
ad_features: [{column: ad}]
user_features: [{column: user}]
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    pl.DataFrame({"user": [1, 2], "ad": [3, 4], "time": [5, 6], "click": [0, 1]}).write_csv(tmp_path / "log.csv")
    return tmp_path


def run(source: Path, *more: str) -> int:
    return main([str(source / "tiny.yaml"), "--data", str(source), "--quiet", *more])


def test_it_prints_what_was_prepared(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(source, "--out", str(source / "out"), "--partitions", "2") == 0
    assert "2 users, 2 ads" in capsys.readouterr().out
    assert open_prepared(source / "out").prepared.splits["train"].clicks == 1


def test_without_out_it_is_prepared_once(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(source)
    assert run(source) == 0
    assert len(list((source / "artifacts/data").glob("tiny-*"))) == 1
    assert "there already" not in capsys.readouterr().out
    assert run(source) == 0
    assert "there already" in capsys.readouterr().out
    assert run(source, "--force") == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--out", "{source}"], "exists already"),
        (["--out", "{source}/out", "--partitions", "0"], "partitions is 0, from 1 to 512 are possible"),
        (["--data", "{source}/nowhere"], "no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    more: list[str], message: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(source, *(argument.format(source=source) for argument in more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("adrank prepare: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_description_with_an_unknown_key(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "tiny.yaml").write_text(SPEC + "lable: click\n")
    assert run(source) == 2
    assert "tiny.yaml: lable: Extra inputs are not permitted" in capsys.readouterr().err


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_shipped_descriptions_can_be_read(path: Path) -> None:
    assert read_spec(path).name == path.stem


def test_force_replaces_only_prepared_data(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(source, "--out", str(source), "--force") == 2
    assert "is no prepared dataset" in capsys.readouterr().err
    assert (source / "log.csv").exists()


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(
    kind: signal.Signals, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    real: Callable[..., Any] = prepare

    def interrupted(*given: Any, **named: Any) -> Any:
        monkeypatch.setattr("models.data.prepare.write_catalogue", lambda *_: signal.raise_signal(kind))
        return real(*given, **named)

    monkeypatch.setattr("models.data.command.prepare", interrupted)
    assert run(source, "--out", str(source / "new")) == 130
    assert capsys.readouterr().err == "adrank prepare: interrupted\n"
    assert sorted(path.name for path in source.iterdir()) == ["log.csv", "tiny.yaml"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_output_that_cannot_be_written(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(source, "--out", str(source / "log.csv/out")) == 2
    error = capsys.readouterr().err
    assert "log.csv" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SPEC.replace("tiny", "t\xe9").encode("latin-1"), "tiny.yaml: cannot be read: 'utf-8' codec"),
        ((SPEC + "label: other\n").encode(), "tiny.yaml: cannot be read: line 11: key 'label' is there twice"),
        ((SPEC + "files: {log: [}\n").encode(), "tiny.yaml: cannot be read: "),
    ],
)
def test_a_description_that_cannot_be_read(
    content: bytes, message: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "tiny.yaml").write_bytes(content)
    assert run(source) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_csv_with_a_byte_order_mark(source: Path) -> None:
    log = source / "log.csv"
    log.write_bytes(b"\xef\xbb\xbf" + log.read_bytes())
    assert run(source, "--out", str(source / "out")) == 0
