"""`adrank loop` against a running service: what is served in the end was learnt from what was served before."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bundle.folder import open_bundle
from bundle.manifest import read_manifest
from bundle.signature import make_key, sign
from control.client import Admin
from export.assemble import Trained
from tests.end_to_end.running import ROOT, adrank, serving, until
from tests.market import Market
from tests.service.conftest import RedisServer

OPEN = ("--gate-overlap", "0", "--gate-psi", "99", "--gate-score-shift", "99", "--gate-latency-ratio", "99")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    yield server
    server.stop()


@pytest.fixture
def store(exported: Path, tmp_path: Path) -> Path:
    """A bundle store of the test's own."""
    place = tmp_path / "store"
    assert adrank("bundle", "publish", str(exported), str(place)).returncode == 0
    return place


def options(url: str, redis: str, store: Path, work: Path, market: Market, trained: Trained, visits: int) -> list[str]:
    asked = ["loop", "--url", url, "--redis", redis, "--bundles", str(store), "--work", str(work), "--quiet"]
    asked += ["--finerank", str(trained.finerank.folder), "--prerank", str(trained.prerank.folder), "--threads", "1"]
    return [*asked, "--market", str(market.raw), "--visits", str(visits), "--k", "6"]


def ask(url: str) -> str:
    """The bundle that answers."""
    body = {"user_id": "7", "context": {"scene": "search", "region": "south"}, "k": 3}
    answer = httpx.post(f"{url}/v1/rank", json=body).raise_for_status().json()
    return str(answer["bundle_id"])


@pytest.mark.slow
def test_turns_are_served_and_an_interrupted_one_is_taken_up(
    store: Path, market: Market, trained: Trained, redis_server: RedisServer, tmp_path: Path
) -> None:
    work, figures, key = tmp_path / "work", tmp_path / "figures.json", tmp_path / "key"
    public = make_key(key)
    sign(store / "tiny", key)
    redis = ("--redis-url", redis_server.url, "--log-entries", "100000", "--bundle-keys", public)
    with serving(store / "tiny", *OPEN, *redis) as url, Admin(url, None, "test") as admin:
        asked = options(url, redis_server.url, store, work, market, trained, 500)
        asked += ["--sign-key", str(key), "--json", str(figures)]
        for reached in (
            "turn-1/outcomes/raw/served",
            "turn-1/prepare.json",
        ):  # in the middle of traffic and of training
            cut = subprocess.Popen([sys.executable, str(ROOT / "adrank.py"), *asked], env=os.environ | ONE_THREAD)
            until((work / reached).exists)
            cut.send_signal(signal.SIGKILL)
            cut.wait(20)
        assert ask(url) == "tiny"
        assert [path.name for path in store.iterdir()] == ["tiny"]
        traffic = (work / "turn-1/traffic.json").read_bytes()

        said = adrank(*asked, "--turns", "2")
        assert said.returncode == 0, said.stderr
        assert (work / "turn-1/traffic.json").read_bytes() == traffic
        assert ask(url) == "tiny-t2"
        state = admin.state()
        assert state.agreed is not None
        assert state.agreed.version == 3
        assert [each.action for each in admin.audit()] == ["serve", "serve", "first"]

    found = json.loads(figures.read_text())
    for turn, served in ((1, "tiny"), (2, "tiny-t1")):
        own = {name.removeprefix(f"loop.turn{turn}."): value for name, value in found.items()}
        assert (own["served"], own["bundle"], own["is_served"]) == (served, f"tiny-t{turn}", True)
        assert own["simulate.all.requests"] == 500
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
    assert said.stdout.splitlines()[0].split()[0] == "turn"


@pytest.mark.slow
def test_a_turn_that_is_refused_leaves_what_is_served(
    store: Path, market: Market, trained: Trained, redis_server: RedisServer, tmp_path: Path
) -> None:
    redis = ("--redis-url", redis_server.url, "--log-entries", "100000", "--gate-psi", "0")
    with serving(store / "tiny", *redis) as url, Admin(url, None, "test") as admin:
        said = adrank(*options(url, redis_server.url, store, tmp_path / "work", market, trained, 300))
        assert said.returncode == 1, said.stderr
        assert "adrank loop: tiny-t1 was refused, tiny is served on" in said.stderr
        assert "refused: psi " in said.stdout
        assert ask(url) == "tiny"
        state = admin.state()
        assert state.wanted is not None
        assert state.wanted.control.bundle == "tiny"
        assert [each.action for each in admin.audit()] == ["rollback", "serve", "first"]


def test_checkpoints_of_another_bundle_are_refused(
    store: Path, market: Market, trained: Trained, redis_server: RedisServer, tmp_path: Path
) -> None:
    with serving(store / "tiny", "--redis-url", redis_server.url, "--log-entries", "1000") as url:
        asked = options(url, redis_server.url, store, tmp_path / "work", market, trained, 10)
        place = asked.index("--finerank")
        bare = adrank(*asked[:place], *asked[place + 4 :])
        assert bare.returncode == 2
        assert "tiny is served, which no turn in" in bare.stderr
        other = tmp_path / "other"
        other.mkdir()
        for path in trained.finerank.folder.iterdir():
            if path.is_file():
                (other / path.name).write_bytes(path.read_bytes())
        head = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(head | {"data": "f" * 64}))
        asked[place + 1] = str(other)
        wrong = adrank(*asked)
        assert wrong.returncode == 2
        assert "was trained on data ffffffffffff, the bundle tiny is made from" in wrong.stderr
