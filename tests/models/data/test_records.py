from pathlib import Path

import polars as pl

from bundle.record import Event, UserRecord, pack
from models.data.prepare import prepare
from models.data.records import stored
from models.data.spec import DatasetSpec, HistoryColumn
from tests.models.data import decoded

AWKWARD = 'a"b\\c\né,'


def history(name: str, length: int, *events: str) -> HistoryColumn:
    return HistoryColumn.model_validate(
        {"name": name, "source": "log", "fields": ["ad"], "max_length": length, "events": events}
    )


def test_a_kind_is_stored_once_from_the_longest_history() -> None:
    clicks, both, skipped = (
        history("a", 5, "click"),
        history("b", 9, "click", "impression"),
        history("c", 9, "impression"),
    )
    assert [(h.name, kinds) for h, kinds in stored((clicks, both, skipped))] == [("b", ["click", "impression"])]
    assert [(h.name, kinds) for h, kinds in stored((clicks, skipped))] == [("a", ["click"]), ("c", ["impression"])]


def test_awkward_values_come_back_and_only_the_last_events_are_kept(tmp_path: Path) -> None:
    log = pl.DataFrame(
        {
            "user": ["ü", "ü", "ü", "ü", "v"],
            "ad": [AWKWARD, "x", AWKWARD, "y", "x"],
            "time": [1, 2, 3, 4, 5],
            "click": [1, 1, 1, 0, 0],
        }
    )
    users = pl.DataFrame(
        {
            "user": ["ü", "w"],
            "city": [AWKWARD, None],
            "income": [1.5, None],
            "tags": ["p q", ""],
            "liked": [["x"], None],
        }
    )
    log.write_parquet(tmp_path / "log.parquet")
    users.write_parquet(tmp_path / "users.parquet")
    spec = DatasetSpec.model_validate(
        {
            "name": "awkward",
            "source": "table",
            "files": {"log": "log.parquet", "users": "users.parquet"},
            "label": "click",
            "user": "user",
            "ad": "ad",
            "time": "time",
            "user_features": [
                {"column": "city"},
                {"column": "income", "kind": "number"},
                {"column": "tags", "kind": "multivalued", "separator": " ", "max_values": 2},
            ],
            "ad_features": [{"column": "ad"}],
            "histories": [
                {"name": "clicks", "source": "log", "column": "liked", "fields": ["ad"], "max_length": 2},
                {"name": "all", "source": "log", "fields": ["ad"], "max_length": 3, "events": ["impression"]},
            ],
        }
    )
    data = prepare(spec, tmp_path, tmp_path / "out", progress=False)
    expected = {
        "ü": UserRecord(
            {"city": AWKWARD, "income": 1.5, "tags": ["p", "q"]},
            (Event("click", 2, ("x",)), Event("click", 3, (AWKWARD,)), Event("impression", 4, ("y",))),
        ),
        "v": UserRecord({"city": None, "income": None, "tags": None}, (Event("impression", 5, ("x",)),)),
        "w": UserRecord({"city": None, "income": None, "tags": []}, ()),
    }
    assert decoded.users(data) == expected
    assert (data.folder / "users/records.npy").read_bytes().endswith(b"".join(pack(expected[user]) for user in "vwü"))
