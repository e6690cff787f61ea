"""Tastes that have turned since a network was trained: going on from it on what users click now ranks for them better
than leaving it alone."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from export.renewal import carried, continued
from models.checkpoint import open_checkpoint
from models.continuing import base_of
from models.data.prepare import prepare
from models.data.spec import SplitSpec, read_spec
from models.evaluation import evaluate, network_scorer
from models.marketplace.files import write_marketplace
from models.marketplace.spec import Effects, MarketplaceSpec
from models.marketplace.visitors import Visitors
from models.marketplace.world import ad_ids, user_ids
from models.train import train_one
from tests.market import make_config

SPEC = MarketplaceSpec(
    seed=2,
    ads=200,
    users=300,
    impressions=12_000,
    categories=5,
    brands=20,
    advertisers=20,
    days=2,
    effects=Effects(bias=-1.5, brand=1.2, interest=0.0, loyalty=0.0),
)
TOGETHER, SHOWN, ROUNDS = 100, 10, 12


def write_turn(market: Path, folder: Path, drift: float) -> Path:
    """A log after that of the marketplace, of ads drawn evenly, with its description."""
    folder.mkdir()
    for name in ("ads.parquet", "users.parquet", "dataset.yaml"):
        shutil.copyfile(market / name, folder / name)
    (folder / "log").mkdir()
    visitors, random = Visitors(SPEC, 1, drift), np.random.default_rng(4)
    frames = []
    for number in range(ROUNDS):
        visits = visitors.come(TOGETHER)
        rows = np.argsort(random.random((TOGETHER, SPEC.ads)), axis=1)[:, :SHOWN]
        seen = visitors.see(visits, [ad_ids(each).tolist() for each in rows])
        log = {
            "user_id": np.repeat(user_ids(visits.users), SHOWN),
            "ad_id": ad_ids(seen.ads).ravel(),
            "request_id": np.repeat(np.arange(TOGETHER) + number * TOGETHER, SHOWN),
            "time_ms": np.repeat(np.arange(TOGETHER) + number * TOGETHER, SHOWN),
            "scene": pl.Series(SPEC.scenes).gather(np.repeat(visits.scenes, SHOWN)),
            "position": np.tile(np.arange(SHOWN, dtype=np.int16), TOGETHER),
            "click": seen.clicks.ravel().astype(np.int8),
            "true_ctr": seen.true_ctr.ravel(),
        }
        frames.append(pl.DataFrame(log))
    pl.concat(frames).write_parquet(folder / "log/00000.parquet")
    return folder


def test_what_goes_on_learns_new_tastes_and_what_is_left_alone_has_the_old_ones(tmp_path: Path) -> None:
    write_marketplace(SPEC, tmp_path / "market", lambda _: None)
    spec = read_spec(tmp_path / "market/dataset.yaml")
    data = prepare(spec, tmp_path / "market", tmp_path / "data", progress=False)
    config = make_config("lr", {"kind": "lr"}, learning_rate=0.05, batch_size=256)
    train_one(config, data, tmp_path / "left", seed=1, progress=False)
    left = open_checkpoint(tmp_path / "left")

    turn = write_turn(tmp_path / "market", tmp_path / "turn", drift=0.8)
    requests = TOGETHER * ROUNDS
    split = SplitSpec(valid_from=requests * 6 // 10, test_from=requests * 7 // 10)
    now = prepare(spec.model_copy(update={"split": split}), turn, tmp_path / "now", progress=False, base=base_of(left))
    continued(left, now, tmp_path / "renewed", 1, progress=False)
    was = left.metrics["test.auc"]
    alone = evaluate(network_scorer(carried(left, now)), now, "test")
    renewed = evaluate(network_scorer(open_checkpoint(tmp_path / "renewed").network()), now, "test")
    assert was > alone["auc"] + 0.05, "tastes have turned"
    assert renewed["auc"] > alone["auc"] + 0.05
    assert renewed["best_auc"] > renewed["auc"]
