from pathlib import Path

import polars as pl
import pytest

from models.data.readers import files
from models.data.readers.files import TextFormat, header_of, stream, table
from models.data.spec import DataError


def csv(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_several_files_are_one_log(tmp_path: Path) -> None:
    first = csv(tmp_path, "1.csv", "a,b\n1,x\n2,\n3,z\n")
    second = tmp_path / "2.parquet"
    pl.DataFrame({"b": ["w"], "extra": [0], "a": [4]}).write_parquet(second)
    log = stream([first, second], ["a", "b"], 2)
    chunks = list(log.chunks())
    assert [(Path(c.file).name, c.first_row, len(c.frame)) for c in chunks] == [
        ("1.csv", 0, 2),
        ("1.csv", 2, 1),
        ("2.parquet", 0, 1),
    ]
    assert pl.concat(c.frame for c in chunks).rows() == [(1, "x"), (2, None), (3, "z"), (4, "w")]
    assert log.columns == ("a", "b")


def test_parquet_in_bounded_pieces_whatever_its_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"a": range(1_000)}).write_parquet(path, row_group_size=300)
    lengths = [len(chunk.frame) for chunk in stream([path], ["a"], 70).chunks()]
    assert (max(lengths), sum(lengths)) == (70, 1_000)
    assert stream([path], ["a"], 70).rows == 1_000


def test_a_file_that_lacks_a_column_is_named_before_anything_is_read(tmp_path: Path) -> None:
    paths = [csv(tmp_path, "1.csv", "a,b\n1,x\n"), csv(tmp_path, "2.csv", "a,c\n1,x\n")]
    with pytest.raises(DataError, match=r"2.csv: there is no column 'b'; it has a, c"):
        stream(paths, ["a", "b"], 10)


def test_an_optional_column_must_be_in_all_files_or_none(tmp_path: Path) -> None:
    paths = [csv(tmp_path, "1.csv", "a,split\n1,train\n"), csv(tmp_path, "2.csv", "a\n1\n")]
    with pytest.raises(DataError, match=r"2.csv: there is no column 'split'"):
        stream(paths, ["a"], 10, optional=["split"])


def test_a_value_of_another_type_further_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 64)
    path = csv(tmp_path, "log.csv", "when,what\n" + "10,1\n" * 40 + "10,many\n")
    with pytest.raises(DataError, match=r"log.csv: cannot be read after row \d+: column 'what': .*'many'"):
        list(stream([path], ["what"], 10).chunks())


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.parquet: cannot be read"):
        header_of(csv(tmp_path, "x.parquet", "a,b\n"))


def test_a_table_without_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.csv: holds no rows"):
        table([csv(tmp_path, "x.csv", "a,b\n")])


def test_other_text_formats(tmp_path: Path) -> None:
    path = tmp_path / "x.dat"
    path.write_bytes('1|Café "noir\n2|NULL\n'.encode("latin-1"))
    text = TextFormat("|", ("id", "title"), nulls=("NULL",), quoted=False, encoding="latin-1")
    assert table([path], text).frame.rows() == [(1, 'Café "noir'), (2, None)]
