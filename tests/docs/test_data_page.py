"""docs/data.md: the tables are those of the code, and the worked example runs as printed."""

import doctest
import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from adrank import COMMANDS
from models.data import counting, partition, prepared
from models.data.command import main
from models.data.prepare import READERS
from models.data.readers import files
from models.data.readers.raw import CHUNK_ROWS
from models.data.spec import (
    DatasetSpec,
    FeatureColumn,
    HistoryColumn,
    LabelColumn,
    SplitSpec,
    TargetingRule,
    VectorFiles,
)
from models.marketplace import likes, truth
from tests.docs import keys
from tests.docs.pages import blocks, codes, commands, read, table

PAGE = read("docs/data.md")


CONFIGS = [DatasetSpec, LabelColumn, FeatureColumn, VectorFiles, HistoryColumn, TargetingRule, SplitSpec]


@pytest.mark.parametrize("model", CONFIGS)
def test_keys_are_those_of_the_description(model: type[BaseModel]) -> None:
    keys.check(PAGE, model)


def test_every_reader_is_described() -> None:
    assert sorted(name for row in table(PAGE, "readers") for name in codes(row[0])) == sorted(READERS)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's files, written as the page shows them; the working folder is theirs."""
    for block in blocks(PAGE):
        if block.title:
            (tmp_path / block.title).parent.mkdir(exist_ok=True)
            (tmp_path / block.title).write_text(block.text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_runs_as_printed(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = next(block.text for block in blocks(PAGE) if "shop/shop.yaml" in block.text and block.language == "console")
    line, _, printed = shown.partition("\n")
    program, command, *rest = shlex.split(line.removeprefix("$ "))
    assert (program, COMMANDS[command][0]) == ("adrank", "models.data.command")
    assert main(rest) == 0
    assert capsys.readouterr().out == printed
    python = next(block.text for block in blocks(PAGE) if block.language == "python")
    test = doctest.DocTestParser().get_doctest(python, {}, "docs/data.md", "docs/data.md", 0)
    assert len(test.examples) == 3
    outcome = doctest.DocTestRunner(verbose=False).run(test)
    assert outcome.failed == 0, capsys.readouterr().out
    assert line.removeprefix("$ ") in commands(PAGE)
    check_columns(shop / "prepared/valid/part-00000.parquet")


def check_columns(part: Path) -> None:
    """Every column of a part is in the table, with its type; every name in the table is in the module that says so."""
    said = {codes(row[0])[0]: row[1] for row in table(PAGE, "columns")}
    for field in pq.read_schema(part):
        name = re.sub(r"^history_.*", "history_NAME", field.name)
        kind = re.sub(r"(?:element|item): |\[\d+\]", "", str(field.type))
        assert said[name] == kind, f"{field.name}: {field.type}"
    for name in said:
        assert name in str(prepared.__doc__), name


def test_numbers_are_those_of_the_code() -> None:
    for number in (CHUNK_ROWS, counting.SAMPLE, partition.MOST_PARTITIONS):
        assert f"{number:,}" in PAGE
    assert f"{files.BLOCK_BYTES >> 20} MB" in PAGE
    assert partition.PARTITION_ROWS == 1_000_000
    assert "one for about a million rows" in PAGE


def test_the_truth_is_that_of_the_code() -> None:
    formula = str(truth.__doc__).partition("logit = ")[2].partition("\n\n")[0]
    assert " ".join(formula.split()) in " ".join(PAGE.split())


def test_the_likes_are_those_of_the_code() -> None:
    formula = str(likes.__doc__).partition("centred normal numbers,")[2].partition("\n\nSo")[0]
    assert "P(like)" in formula
    assert " ".join(formula.split()) in " ".join(PAGE.split())


def test_the_marketplace_is_called_simulated() -> None:
    section = PAGE.partition("## The simulated marketplace")[2]
    assert section.strip().startswith("**It is simulated.**")
