"""A service, its Redis and a collector that is killed: what the shadow was worth is said by what users clicked."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from bundle.folder import open_bundle
from control.changes import SetShadow
from control.client import Admin
from control.state import Shadow
from models import metrics
from outcomes.tables import read_table
from service.example import example_request
from tests.end_to_end.running import adrank, running, serving
from tests.patience import PATIENCE_S, until
from tests.service.conftest import RedisServer
from tests.service.world import Recipe, make_world

KEY = "an-admin-key-of-tests"


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    yield server
    server.stop()


class Visitors:
    """Users who see all ads of their answers and click some; the next asks when the shadow is done with the last."""

    def __init__(self, client: httpx.Client, body: dict[str, Any]) -> None:
        self.client, self.body, self.draw = client, body, random.Random(3)
        self.said: dict[tuple[str, str], tuple[str, float, bool]] = {}
        """User, pCTR and click by request and ad."""
        self.whole = 0
        """Answers that were not degraded: the shadow takes no others."""

    def visit(self, turns: int) -> None:
        for _ in range(turns):
            user = f"u{self.draw.randrange(30)}"
            answer = self.client.post("/v1/rank", json=self.body | {"user_id": user}).raise_for_status().json()
            self.whole += not answer["degraded"]
            name = {"user_id": user, "request_id": answer["request_id"]}
            events = []
            for ad in answer["ads"]:
                clicked = self.draw.random() < 0.3
                self.said[answer["request_id"], str(ad["ad_id"])] = user, ad["pctr"], clicked
                kinds = ("impression", "click") if clicked else ("impression",)
                events += [name | {"kind": kind, "ad_id": ad["ad_id"]} for kind in kinds]
            self.client.post("/v1/events", json={"events": events}).raise_for_status()
            until(lambda: self.dealt() == self.whole, lambda: f"{self.dealt()} of {self.whole} requests", 0.005)

    def dealt(self) -> int:
        """Requests that the shadow is done with, one way or the other."""
        found = self.client.get("/v1/bundles").json()["shadow"]
        return sum(found[name] for name in ("ranked", "dropped", "refused", "failed"))


def test_the_shadow_is_judged_by_what_was_clicked(redis_server: RedisServer, tmp_path: Path) -> None:
    bundle, out = make_world(tmp_path / "bundles"), tmp_path / "out"
    make_world(tmp_path / "bundles", Recipe(bundle_id="b2", poisoned=tuple(range(1000, 1300, 7))))
    options = ("--redis-url", redis_server.url, "--log-entries", "10000", "--gate-non-finite-share", "1")
    collect = ("outcomes", "--redis", redis_server.url, "--out", str(out), "--flush-seconds", "0.05")
    with (
        serving(bundle, *options, ADRANK_ADMIN_KEY=KEY) as url,
        Admin(url, KEY, "anna") as admin,
        httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        shadow = SetShadow(shadow=Shadow(bundle="b2", share=1.0), who="anna", why="to see")
        admin.wait(admin.change(shadow), PATIENCE_S)
        visitors = Visitors(client, example_request(open_bundle(bundle), 5))
        with running(*collect, "--log-level", "error") as process:
            visitors.visit(30)
            until((out / "progress.json").exists)
            visitors.visit(6)
            process.kill()
        visitors.visit(30)
        ranked = client.get("/v1/bundles").json()["shadow"]["ranked"]
    with Redis.from_url(redis_server.url) as redis:
        redis.delete("log:adrank:user:collector")  # of the collector that was killed: it would go in 15 s
    assert adrank(*collect, "--once", "--log-level", "error").returncode == 0

    table = read_table(out, "shadow")
    found = {
        (row["request_id"], row["ad_id"]): (row["user_id"], row["pctr"], row["clicked"])
        for row in table.iter_rows(named=True)
    }
    assert len(found) == len(table) == ranked * 5, "each once"
    assert found.items() <= visitors.said.items()
    assert ranked >= 33, "more than half of them, on however busy a machine"
    assert set(table["shadow_bundle_id"]) == {"b2"}

    said = adrank("experiment", "shadow", "--outcomes", str(out), "--json")
    assert said.returncode == 0, said.stderr
    (verdict,) = json.loads(said.stdout)["shadows"]
    assert verdict["unscored"] == table["shadow_pctr"].null_count() > 0
    table = table.drop_nulls("shadow_pctr")
    clicked, users = table["clicked"].to_numpy(), table["user_id"].to_numpy()
    for name, column in (("live", "pctr"), ("shadow", "shadow_pctr")):
        scores = table[column].to_numpy()
        assert verdict["auc"][name] == pytest.approx(metrics.auc(clicked, scores))
        assert verdict["gauc"][name] == pytest.approx(metrics.gauc(clicked, scores, users).value)
    assert verdict["gauc"]["low"] <= verdict["gauc"]["difference"] <= verdict["gauc"]["high"]
