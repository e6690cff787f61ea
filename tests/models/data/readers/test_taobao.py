"""Taobao display ads in its true layout: headers, NULL, the space at the end of a header, nonclk beside clk."""

from pathlib import Path

import pytest

from models.data.prepare import prepare
from models.data.readers import taobao
from models.data.spec import DataError, DatasetSpec, read_spec
from tests.models.data import decoded

CONFIG = Path(__file__).parents[4] / "models/configs/data/taobao.yaml"
DAY_8 = 1494604800
DAY_7 = 1494518400

RAW_SAMPLE = f"""user,time_stamp,adgroup_id,pid,nonclk,clk
581738,1494137644,1,430548_1007,1,0
449818,1494138000,3,430548_1007,0,1
581738,1494140000,3,430539_1007,0,1
449818,{DAY_7},1,430548_1007,1,0
581738,{DAY_8},4,430548_1007,0,1
"""
AD_FEATURE = """adgroup_id,cate_id,campaign_id,customer,brand,price
1,9025,100075,1,NULL,170.0
3,6261,83237,3,87331,199.5
4,1665,3434,7,8888,38.0
"""
# The header of the published file ends in a space.
PROFILE_COLUMNS = "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,shopping_level,occupation"
USER_PROFILE = f"""{PROFILE_COLUMNS},new_user_class_level{" "}
449818,0,5,2,5,,3,0,3
581738,16,8,2,2,2,3,1,
"""
BEHAVIOR_LOG = f"""user,time_stamp,btag,cate,brand
581738,1494137000,pv,9025,1001
581738,1494137643,buy,6261,87331
581738,1494137644,pv,6261,87331
449818,1493000000,cart,7777,
558157,1493741625,pv,6250,91286
581738,{DAY_8 - 1},fav,4444,5555
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, text in (
        ("raw_sample", RAW_SAMPLE),
        ("ad_feature", AD_FEATURE),
        ("user_profile", USER_PROFILE),
        ("behavior_log", BEHAVIOR_LOG),
    ):
        (folder / f"{name}.csv").write_text(text)
    return folder


def spec() -> DatasetSpec:
    """The shipped description, keeping rare values."""
    shipped = read_spec(CONFIG)
    rare = {
        side: [f.model_copy(update={"min_count": 1}) for f in getattr(shipped, side)]
        for side in ("user_features", "ad_features")
    }
    return DatasetSpec.model_validate(shipped.model_dump() | {k: [f.model_dump() for f in v] for k, v in rare.items()})


def test_behaviours_are_grouped_by_user_strictly_before_each_impression(source: Path, tmp_path: Path) -> None:
    data = prepare(spec(), source, tmp_path / "out", progress=False)
    train, valid, test = (decoded.requests(data, split) for split in ("train", "valid", "test"))
    assert [(r["ads"], r["labels"], r["history_behaviours"]) for r in train] == [
        # The behaviour at the very second of the impression is not seen. Brand 1001 counts: training could see it.
        ([1], [0], [(9025, 1001), (6261, 87331)]),
        ([3], [1], [(7777, None)]),
        ([3], [1], [(9025, 1001), (6261, 87331), (6261, 87331)]),
    ]
    assert [(r["ads"], r["time"]) for r in valid] == [([1], DAY_7)]
    # Category 4444 was first seen after the last training impression: unknown.
    assert test[0]["history_behaviours"][-1] == (None, None)
    assert len(test[0]["history_behaviours"]) == 4


def test_features(source: Path, tmp_path: Path) -> None:
    data = prepare(spec(), source, tmp_path / "out", progress=False)
    train = decoded.requests(data, "train")
    assert [r["user.new_user_class_level"] for r in train] == [None, 3, None]
    assert [r["user.pvalue_level"] for r in train] == [2, None, 2]
    assert [r["context.pid"] for r in train] == ["430548_1007", "430548_1007", "430539_1007"]
    catalogue = decoded.ads(data)
    assert catalogue[1]["brand"] is None
    assert (catalogue[3]["brand"], catalogue[3]["cate_id"]) == (87331, 6261)
    assert catalogue[4]["campaign_id"] is None  # not in training


def test_packed_behaviours_have_milliseconds(source: Path, tmp_path: Path) -> None:
    users = decoded.users(prepare(spec(), source, tmp_path / "out", progress=False))
    # Users of the behaviour log only are not kept.
    assert sorted(users) == ["449818", "581738"]
    assert [(e.kind, e.time_ms, e.values) for e in users["449818"].events] == [("click", 1493000000000, (7777, None))]
    assert users["581738"].profile["age_level"] == 2


@pytest.mark.parametrize("row", ["1,1,1,430548_1007,1,1", "1,1,1,430548_1007,0,0", "1,1,1,430548_1007,,1"])
def test_clk_and_nonclk_must_agree(row: str, source: Path, tmp_path: Path) -> None:
    (source / "raw_sample.csv").write_text(RAW_SAMPLE + row + "\n")
    with pytest.raises(DataError, match=r"raw_sample.csv: column 'clk', row 5: .*nonclk 1 - clk"):
        prepare(spec(), source, tmp_path / "out", progress=False)


def test_an_action_that_is_none(source: Path, tmp_path: Path) -> None:
    (source / "behavior_log.csv").write_text(BEHAVIOR_LOG + "1,1,stare,1,1\n")
    with pytest.raises(DataError, match=r"behavior_log.csv: column 'btag', row 6: 'stare', known: pv, cart, fav, buy"):
        prepare(spec(), source, tmp_path / "out", progress=False)


def test_text_where_a_number_belongs(source: Path, tmp_path: Path) -> None:
    (source / "raw_sample.csv").write_text(RAW_SAMPLE + "1,noon,1,430548_1007,0,1\n")
    with pytest.raises(DataError, match=r"raw_sample.csv: cannot be read after row 0: column 'time_stamp': .*'noon'"):
        prepare(spec(), source, tmp_path / "out", progress=False)


def test_behaviours_are_streamed_in_bounded_pieces(source: Path) -> None:
    (source / "behavior_log.csv").write_text("user,time_stamp,btag,cate,brand\n" + "1,1,pv,2,3\n" * 5_000)
    behaviours = taobao.open_source(spec(), source, 100).behaviours
    assert behaviours is not None
    lengths = [len(chunk.frame) for chunk in behaviours.chunks()]
    assert max(lengths) <= 100
    assert sum(lengths) == 5_000
    assert behaviours.rows == pytest.approx(5_000, rel=0.01)
