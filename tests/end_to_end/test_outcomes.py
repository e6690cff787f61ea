"""Served, logged, collected, trained on: what was acknowledged is there after kill -9, and training sees what serving
saw."""

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import yaml
from redis import Redis

from bundle.folder import open_bundle
from bundle.record import encode_history, unpack
from export.assemble import Trained
from models import train
from models.data import command as prepare_command
from models.data.prepared import open_prepared
from outcomes import command
from outcomes.segments import segments
from service import replay_command
from service.app import create_app
from tests.end_to_end.running import is_ready
from tests.market import Market
from tests.outcomes.feeding import DurableRedis
from tests.patience import PATIENCE_S, until
from tests.service.conftest import client_of, free_port
from tests.service.world import settings_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[DurableRedis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = DurableRedis(folder)
    yield server
    server.stop()


def collect(server: DurableRedis, out: Path, *options: str) -> None:
    assert command.main(["--redis", server.url, "--prefix", "e:", "--out", str(out), "--once", *options]) == 0


class Visitors:
    """Users of the bundle who ask, see and click, some of them in odd ways."""

    def __init__(self, client: httpx.AsyncClient, users: list[str], ads: list[Any]) -> None:
        self.client, self.users, self.ads = client, users, ads
        self.draw = random.Random(4)
        self.answered: list[str] = []

    async def ask(self, user: str) -> None:
        body: dict[str, Any] = {"user_id": user, "context": {"scene": "search", "region": "south"}, "k": 6}
        if self.draw.random() < 0.2:
            body["user"] = {"history": {"clicks": self.draw.sample(self.ads, 3)}}
        answer = (await self.client.post("/v1/rank", json=body)).json()
        name = {"user_id": user, "request_id": answer["request_id"]}
        events = [name | {"kind": "impression", "ad_id": ad["ad_id"]} for ad in answer["ads"]]
        for ad in answer["ads"]:
            if self.draw.random() < 0.4:  # a clock that is wrong: nobody could sort these events by their times
                odd = {"time_ms": self.draw.randrange(2**40)} if self.draw.random() < 0.5 else {}
                events.append(name | {"kind": "click", "ad_id": ad["ad_id"]} | odd)
        told = (await self.client.post("/v1/events", json={"events": events})).json()
        assert told["logged"] == len(events)
        self.answered.append(answer["request_id"])


def test_training_sees_what_serving_saw(
    exported: Path, market: Market, trained: Trained, redis_server: DurableRedis, tmp_path: Path
) -> None:
    bundle, out = open_bundle(exported), tmp_path / "out"
    assert bundle.users is not None
    users = list(bundle.users.ids())
    with Redis.from_url(redis_server.url) as redis:
        redis.mset({f"e:{user}": bundle.users.get(user) for user in users})
    settings = settings_for(exported, redis_url=redis_server.url, redis_prefix="e:", log_entries=10_000)

    async def scenario() -> list[str]:
        async with client_of(create_app(settings)) as client:
            ads = [bundle.ads.index.value_of(row) for row in range(2, 40)]
            visitors = Visitors(client, users, ads)
            for turn in range(60):
                await visitors.ask([*users, "stranger"][turn * 7 % (len(users) + 1)])
            return visitors.answered

    answered = asyncio.run(scenario())
    collect(redis_server, out, "--dataset", str(market.raw / "dataset.yaml"))
    prepared = tmp_path / "prepared"
    arguments = [str(out / "dataset.yaml"), "--data", str(out), "--out", str(prepared), "--quiet"]
    assert prepare_command.main(arguments) == 0

    data = open_prepared(prepared)
    history = bundle.manifest.features.histories[0]
    parts = [pl.read_parquet(path) for split in ("train", "valid", "test") for path in (prepared / split).glob("*")]
    found = {row["time"]: row for part in parts for row in part.to_dicts()}
    served = [line for segment in segments(out, "served") for line in segment.lines()]
    assert [line["head"]["request_id"] for line in served] == answered
    for line in served:
        row = found[line["head"]["time_ms"]]
        index = data.ads.index
        assert [index.value_of(ad) for ad in row["ads"]] == [ad["ad_id"] for ad in line["answer"]["ads"]]
        given = json.loads(line["asked"]).get("user", {}).get("history", {}).get("clicks")
        if given is None:
            events = () if line["record"] is None else unpack(line["record"].encode()).events
            seen = encode_history(bundle.encoder, history, events, bundle.ads.index, bundle.ads.fields)
            ads = np.array([index.value_of(ad) for ad in row["history_clicks"]])
            rows = bundle.ads.index.ids_of_list(ads.tolist())
            columns = bundle.encoder.schema.history_columns(history)
            again = bundle.ads.fields[rows][:, columns] if len(rows) else np.zeros((1, len(columns)))
            assert np.array_equal(again, seen)
        else:
            assert [index.value_of(ad) for ad in row["history_clicks"]] == given
    assert sum(row["time"] in found for row in found.values()) == len(served)

    config = tmp_path / "lr.yaml"
    config.write_text('{"name": "served-lr", "dataset": "dataset.yaml", "model": {"kind": "lr"}}')
    options = ["--data", str(out), "--prepared", str(tmp_path / "data"), "--out", str(tmp_path / "checkpoint")]
    assert train.main([str(config), *options, "--quiet"]) == 0
    checkpoint = trained.finerank
    config.write_text(yaml.safe_dump(checkpoint.config.model_dump(mode="json") | {"name": "served-din"}))
    assert train.main([str(config), *options, "--continue-from", str(checkpoint.folder), "--quiet"]) == 0
    for request_id in answered[:5]:
        assert replay_command.main([request_id, "--log", str(out), "--bundles", str(exported.parent)]) == 0


class Service:
    """`adrank serve`, which is killed and started again."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        options = ["--bundle", str(folder), "--port", str(self.port), "--redis-url", redis_url, "--redis-prefix", "e:"]
        options += ["--log-entries", "100000", "--log-level", "error", "--breaker-seconds", "0.05"]
        self.command = [sys.executable, "adrank.py", "serve", *options]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: is_ready(self.url))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)


def test_acknowledged_events_survive_kill_9_of_the_service_and_of_redis(
    redis_server: DurableRedis, tmp_path: Path
) -> None:
    from tests.service.world import make_world

    service = Service(make_world(tmp_path / "bundles"), redis_server.url)
    out = tmp_path / "out"
    told: list[str] = []

    def send(count: int) -> None:
        with httpx.Client(base_url=service.url, timeout=PATIENCE_S) as client:
            for _ in range(count):
                name = f"r{len(told)}"
                body = {"events": [{"user_id": 5, "kind": "click", "ad_id": 1003, "request_id": name}]}
                if client.post("/v1/events", json=body).status_code == 200:
                    told.append(name)

    try:
        send(30)
        service.kill()
        service.start()
        send(30)
        redis_server.kill()
        redis_server.start()
        send(30)
        redis_server.kill()
        service.kill()
        redis_server.start()
    finally:
        service.process.kill()
        service.process.wait(PATIENCE_S)
    assert len(told) >= 80
    collect(redis_server, out)
    lines = [line for segment in segments(out, "events") for line in segment.lines()]
    logged = [event["request_id"] for line in lines for event in line["events"]]
    assert set(told) <= set(logged)
    with Redis.from_url(redis_server.url) as redis:
        stored = unpack(redis.get("e:5") or b"").events
    assert len(stored) == len(logged)
