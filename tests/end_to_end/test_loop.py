"""`adrank loop` against a running service: what is served in the end was learnt from what was served before."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bundle.folder import open_bundle
from bundle.manifest import read_manifest
from bundle.signature import make_key, sign
from bundle.store import publish
from control.client import Admin
from export import loop
from export.assemble import Trained
from models.checkpoint import write_json
from tests.end_to_end.running import ROOT, serving
from tests.export.test_judgement import spoil
from tests.market import Market
from tests.patience import PATIENCE_S, until
from tests.service.conftest import RedisServer

OPEN = ("--gate-overlap", "0", "--gate-psi", "99", "--gate-score-shift", "99")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
LOOP = (sys.executable, str(ROOT / "adrank.py"), "loop")
VISITS = 200
ENOUGH = ("--auc-drop", "1", "--logloss-rise", "9", "--min-users", "1")
"""Some hundred impressions do not tell how good a network is."""


@dataclass(frozen=True)
class World:
    """A service of the tiny bundle that takes signed bundles only."""

    url: str
    redis: str
    store: Path
    key: Path

    def options(self, work: Path, market: Market, trained: Trained) -> list[str]:
        """Of `adrank loop`; without a key to sign with."""
        asked = ["--url", self.url, "--redis", self.redis, "--bundles", str(self.store), "--work", str(work), "--quiet"]
        asked += ["--finerank", str(trained.finerank.folder), "--prerank", str(trained.prerank.folder)]
        return [*asked, "--market", str(market.raw), "--visits", str(VISITS), "--k", "6", "--threads", "1", *ENOUGH]


@pytest.fixture(scope="module")
def world(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Of all tests here: those that leave the tiny bundle served come first."""
    folder = tmp_path_factory.mktemp("loop")
    store, key = folder / "store", folder / "key"
    public = make_key(key)
    publish(exported, str(store))
    sign(store / "tiny", key)
    redis = RedisServer(folder)
    service = ("--redis-url", redis.url, "--log-entries", "100000", "--bundle-keys", public, *OPEN)
    with serving(store / "tiny", *service) as url:
        yield World(url, redis.url, store, key)
    redis.stop()


def ask(url: str) -> str:
    """The bundle that answers."""
    body = {"user_id": "7", "context": {"scene": "search", "region": "south"}, "k": 3}
    answer = httpx.post(f"{url}/v1/rank", timeout=PATIENCE_S, json=body).raise_for_status().json()
    return str(answer["bundle_id"])


def prepared(turn: Path, data: Path) -> None:
    """A turn that was cut off when its data were prepared."""
    turn.mkdir(parents=True)
    write_json(turn / "traffic.json", {"served": "tiny"})
    write_json(turn / "prepare.json", {"data": str(data), "rows": 6_000})


def test_checkpoints_of_another_bundle_are_refused(
    world: World, market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = world.options(tmp_path / "work", market, trained)
    place = asked.index("--finerank")
    assert loop.main([*asked[:place], *asked[place + 4 :]]) == 2
    assert "tiny is served, which no turn in" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    for path in trained.finerank.folder.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    head = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(head | {"data": "f" * 64}))
    asked[place + 1] = str(other)
    assert loop.main(asked) == 2
    assert "was trained on data ffffffffffff, the bundle tiny is made from" in capsys.readouterr().err


def test_a_turn_whose_labels_were_shuffled_is_no_bundle(
    world: World, market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    shutil.copytree(market.data.folder, tmp_path / "data")
    spoil(tmp_path / "data")
    prepared(work / "turn-1", tmp_path / "data")
    asked = [*world.options(work, market, trained), "--auc-drop", "0", "--logloss-rise", "0"]
    with Admin(world.url, None, "test") as admin:
        before = admin.audit()
        assert loop.main(asked) == 1
        assert admin.audit() == before
    said = capsys.readouterr()
    assert "adrank loop: tiny-t1 was refused, tiny is served on" in said.err
    assert " - not asked: finerank " in " ".join(said.out.split())
    assert [path.name for path in world.store.iterdir()] == ["tiny"]
    assert ask(world.url) == "tiny"
    figures = json.loads((work / "turn-1/judge.json").read_text())
    assert figures["judge.finerank.impressions"] == market.data.prepared.splits["test"].impressions
    assert loop.next_turn(work) == 2


def test_a_turn_that_the_gate_refuses_leaves_what_is_served(
    world: World, market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not signed."""
    prepared(tmp_path / "work/turn-1", market.data.folder)
    asked = [*world.options(tmp_path / "work", market, trained), "--name", "unsigned"]
    with Admin(world.url, None, "test") as admin:
        assert loop.main(asked) == 1
        said = capsys.readouterr()
        assert "adrank loop: unsigned-t1 was refused, tiny is served on" in said.err
        assert "refused: signature " in said.out
        assert ask(world.url) == "tiny"
        state = admin.state()
        assert state.wanted is not None
        assert state.wanted.control.bundle == "tiny"
        assert [each.action for each in admin.audit()][:2] == ["rollback", "serve"]


@pytest.mark.slow
def test_turns_are_served_and_an_interrupted_one_is_taken_up(
    world: World, market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, work, figures = world.store, tmp_path / "work", tmp_path / "figures.json"
    asked = [*world.options(work, market, trained), "--sign-key", str(world.key), "--json", str(figures)]
    with Admin(world.url, None, "test") as admin:
        earlier = admin.state().wanted  # after a turn that was refused, the way back may not be agreed on yet
        assert earlier is not None
        held = {path.name for path in store.iterdir()}
        for reached in (
            "turn-1/outcomes/raw/served",
            "turn-1/prepare.json",
        ):  # in the middle of traffic and of training
            cut = subprocess.Popen([*LOOP, *asked], env=os.environ | ONE_THREAD)
            until((work / reached).exists)
            cut.send_signal(signal.SIGKILL)
            cut.wait(PATIENCE_S)
        assert ask(world.url) == "tiny"
        assert {path.name for path in store.iterdir()} == held
        traffic = (work / "turn-1/traffic.json").read_bytes()

        assert loop.main([*asked, "--turns", "2"]) == 0
        assert (work / "turn-1/traffic.json").read_bytes() == traffic
        assert ask(world.url) == "tiny-t2"
        state = admin.state().agreed
        assert state is not None
        assert state.version == earlier.version + 2
        assert [each.action for each in admin.audit()][:2] == ["serve", "serve"]

    found = json.loads(figures.read_text())
    for turn, served in ((1, "tiny"), (2, "tiny-t1")):
        own = {name.removeprefix(f"loop.turn{turn}."): value for name, value in found.items()}
        assert (own["served"], own["bundle"], own["is_served"]) == (served, f"tiny-t{turn}", True)
        assert own["simulate.all.requests"] == VISITS
        if turn == 2:  # of the first one visits were cut off, which were logged all the same
            assert own["rows"] == own["simulate.all.impressions"]
        assert 0 < own["simulate.all.true_ctr"] < 1
        assert own["gate"].startswith("passed ")
        assert 0 < own["bytes"] < 0.8
    # What is served is made of what was learnt: the catalogue's order and sizes stay, weights do not.
    before, after = (read_manifest(store / name) for name in ("tiny", "tiny-t2"))
    assert after.stages.prerank.keep == before.stages.prerank.keep
    assert after.stages.finerank.calibration is not None
    assert before.features.ad.fields[0].size <= after.features.ad.fields[0].size
    old, new = (open_bundle(store / name).ads for name in ("tiny-t1", "tiny-t2"))
    assert not (old.qscores == new.qscores).all()
    assert capsys.readouterr().out.splitlines()[0].split()[0] == "turn"
