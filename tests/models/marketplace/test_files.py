from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.data.spec import read_spec
from models.marketplace import files
from models.marketplace.files import Written, dataset_spec, write_marketplace
from models.marketplace.spec import MarketplaceSpec
from models.marketplace.truth import Truth
from models.marketplace.world import ad_rows, build_world, user_rows

SPEC = MarketplaceSpec(ads=400, users=600, impressions=30_000, categories=5, brands=20, candidates=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("marketplace") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "ROWS_A_FILE", 10_000)
        patch.setattr(files, "ROWS_A_GROUP", 150)
        write_marketplace(SPEC, out, lambda _: None)
    return out


def test_the_description_is_read_back(folder: Path) -> None:
    assert read_spec(folder / "dataset.yaml") == dataset_spec(SPEC)


def test_every_named_column_is_there(folder: Path) -> None:
    spec = read_spec(folder / "dataset.yaml")
    log = pl.read_parquet(folder / spec.files["log"])
    users, ads = (pl.read_parquet(folder / spec.files[name]) for name in ("users", "ads"))
    assert {spec.user, spec.ad, spec.time, spec.label, spec.truth, spec.position, *spec.request} <= set(log.columns)
    assert {feature.column for feature in spec.context_features} <= set(log.columns)
    assert {spec.ad, spec.bid, *(feature.column for feature in spec.ad_features)} <= set(ads.columns)
    assert {spec.user, spec.histories[0].column, *(f.column for f in spec.user_features)} <= set(users.columns)
    assert set(log["user_id"]) <= set(users["user_id"])
    assert set(log["ad_id"]) <= set(ads["ad_id"])
    assert users["user_id"].n_unique() == SPEC.users
    assert ads["ad_id"].n_unique() == SPEC.ads


def test_several_files_make_one_log_in_order(folder: Path) -> None:
    parts = sorted((folder / "log").glob("*.parquet"))
    assert len(parts) >= 3
    log = pl.concat([pl.read_parquet(part) for part in parts])
    assert log.height == 30_000
    assert log["time_ms"].is_sorted()
    assert log["request_id"].to_list() == [i // 5 for i in range(30_000)]
    assert log["click"].dtype == pl.Int8


def test_the_split_is_80_10_10(folder: Path) -> None:
    spec = read_spec(folder / "dataset.yaml")
    time = pl.read_parquet(folder / "log/*.parquet")["time_ms"].to_numpy()
    assert (time < spec.split.valid_from).mean() == pytest.approx(0.8, abs=0.01)
    assert (time >= spec.split.test_from).mean() == pytest.approx(0.1, abs=0.01)


def test_the_probability_can_be_computed_again_from_the_files(folder: Path) -> None:
    """Users' histories as a reader builds them from the files give the logged true_ctr."""
    spec = MarketplaceSpec.model_validate_json((folder / "marketplace.json").read_text())
    assert spec == SPEC
    truth = Truth(build_world(spec))
    users = pl.read_parquet(folder / "users.parquet")
    past = dict(zip(users["user_id"].to_list(), users["initial_history"].to_list(), strict=True))
    log = pl.read_parquet(folder / "log/*.parquet").head(15_000)
    rows, histories = [], []
    for request in log.partition_by("request_id", maintain_order=True):
        user = request["user_id"][0]
        recent = past[user][-spec.history_length :]
        if request["request_id"][0] % 10 == 0:
            padded = [-1] * (spec.history_length - len(recent)) + ad_rows(np.array(recent, dtype=np.int64)).tolist()
            histories += [padded] * request.height
            rows.append(request)
        past[user] = past[user] + request.filter(pl.col("click") == 1)["ad_id"].to_list()
    some = pl.concat(rows)
    found = truth.true_ctr(
        user_rows(some["user_id"].to_numpy()),
        ad_rows(some["ad_id"].to_numpy()),
        np.array([spec.scenes.index(scene) for scene in some["scene"]]),
        some["position"].to_numpy(),
        np.array(histories),
    )
    np.testing.assert_allclose(found, some["true_ctr"].to_numpy(), rtol=1e-5)


def test_the_test_part_is_reported(tmp_path: Path) -> None:
    told: list[int] = []
    written: Written = write_marketplace(SPEC, tmp_path / "again", told.append)
    log = pl.read_parquet(tmp_path / "again/log/*.parquet")
    test = log.filter(pl.col("time_ms") >= dataset_spec(SPEC).split.test_from)
    assert sum(told) == written.impressions == log.height
    assert written.clicks == log["click"].sum()
    np.testing.assert_array_equal(written.test_clicks, test["click"].to_numpy() == 1)
    np.testing.assert_array_equal(written.test_truth, test["true_ctr"].to_numpy())


def test_an_existing_folder_is_refused(folder: Path) -> None:
    with pytest.raises(FileExistsError, match="exists: choose another folder"):
        write_marketplace(SPEC, folder, lambda _: None)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_marketplace(SPEC, tmp_path / "data", stop)
    assert list(tmp_path.iterdir()) == []
