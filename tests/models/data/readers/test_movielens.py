"""MovieLens 100K and 1M in their true layouts, latin-1 titles included."""

from pathlib import Path

import pytest

from models.data.prepare import prepare
from models.data.spec import DataError, DatasetSpec, read_spec
from tests.models.data import decoded

CONFIGS = Path(__file__).parents[4] / "models/configs/data"

U_DATA = (
    "196\t242\t3\t881250949\n186\t302\t4\t881250949\n196\t302\t5\t881250950\n"
    "196\t51\t4\t890000000\n186\t51\t1\t892000000\n"
)
U_ITEM = (
    "242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
    "302|L.A. Confidential (1997)|01-Jan-1997||http://us.imdb.com/x|0|0|0|0|0|0|1|0|0|0|1|0|0|1|0|0|1|0|0\n"
    "51|Misérables, Les|01-Jan-1995|||1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
)
U_USER = "196|49|M|writer|55105\n186|39|F|executive|00000\n"

RATINGS = (
    "1::1193::5::968300760\n1::661::3::968302109\n2::1193::4::968298413\n2::661::5::977000000\n1::11::2::980000000\n"
)
MOVIES = (
    "1193::One Flew Over the Cuckoo's Nest (1975)::Drama\n"
    "661::James: and the Giant Peach (1996)::Animation|Children's|Musical\n"
    "11::Café Noir (1990)::Drama|Romance\n"
)
USERS = "1::F::1::10::48067\n2::M::56::16::70072\n"


@pytest.fixture
def ml_100k(tmp_path: Path) -> Path:
    return write(tmp_path / "ml-100k", {"u.data": U_DATA, "u.item": U_ITEM, "u.user": U_USER})


@pytest.fixture
def ml_1m(tmp_path: Path) -> Path:
    return write(tmp_path / "ml-1m", {"ratings.dat": RATINGS, "movies.dat": MOVIES, "users.dat": USERS})


def write(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode("latin-1"))
    return folder


def spec(name: str) -> DatasetSpec:
    shipped = read_spec(CONFIGS / f"{name}.yaml").model_dump()
    for feature in (*shipped["user_features"], *shipped["ad_features"]):
        feature["min_count"] = 1
    return DatasetSpec.model_validate(shipped)


def test_100k(ml_100k: Path, tmp_path: Path) -> None:
    data = prepare(spec("movielens-100k"), ml_100k, tmp_path / "out", progress=False)
    train, valid, test = (decoded.requests(data, split) for split in ("train", "valid", "test"))
    assert [(r["ads"], r["labels"], r["history_clicks"], r["history_disliked"]) for r in train] == [
        ([302], [1], [], []),
        ([242], [0], [], []),
        ([302], [1], [], [242]),
    ]
    assert [(r["ads"], r["history_clicks"]) for r in valid] == [([51], [302])]
    assert [(r["ads"], r["labels"], r["history_clicks"]) for r in test] == [([51], [0], [302])]
    assert [r["user.occupation"] for r in train] == ["executive", "writer", "writer"]
    assert decoded.ads(data)[302]["genres"] == ["Crime", "Film-Noir", "Mystery", "Thriller"]
    # Seen in validation only: the movie and its genre are unknown, its row is there.
    assert decoded.ads(data)[51] == {"movie_id": None, "year": 1, "genres": [None]}
    first = decoded.users(data)["196"].events[0]
    assert (first.kind, first.time_ms, first.values) == ("impression", 881250949000, (242,))


def test_1m(ml_1m: Path, tmp_path: Path) -> None:
    data = prepare(spec("movielens-1m"), ml_1m, tmp_path / "out", progress=False)
    train = decoded.requests(data, "train")
    assert [(r["time"], r["ads"], r["labels"]) for r in train] == [
        (968298413, [1193], [1]),
        (968300760, [1193], [1]),
        (968302109, [661], [0]),
    ]
    assert [(r["user.gender"], r["user.age"], r["user.occupation"]) for r in train][:2] == [
        ("M", 56, "16"),
        ("F", 1, "10"),
    ]
    assert decoded.ads(data)[661]["genres"] == ["Animation", "Children's", "Musical"]
    assert [r["ads"] for r in decoded.requests(data, "valid")] == [[661]]
    assert [r["history_clicks"] for r in decoded.requests(data, "test")] == [[1193]]


def test_a_folder_of_neither_format(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither u.data \(100K\) nor ratings.dat \(1M\)"):
        prepare(spec("movielens-1m"), tmp_path, tmp_path / "out", progress=False)


def test_a_rating_out_of_range(ml_1m: Path, tmp_path: Path) -> None:
    (ml_1m / "ratings.dat").write_text(RATINGS + "1::11::6::5\n")
    with pytest.raises(DataError, match=r"ratings.dat: column 'rating', row 5: 6, a rating from 1 to 5"):
        prepare(spec("movielens-1m"), ml_1m, tmp_path / "out", progress=False)


def test_a_line_with_fields_missing(ml_1m: Path, tmp_path: Path) -> None:
    (ml_1m / "users.dat").write_text("1::F::1\n")
    with pytest.raises(DataError, match=r"users.dat, row 0: 3 fields, 5 are needed"):
        prepare(spec("movielens-1m"), ml_1m, tmp_path / "out", progress=False)
