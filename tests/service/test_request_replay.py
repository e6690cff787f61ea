"""A logged request gives the same scores to the bit, or names the input that differs."""

import asyncio
import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from bundle.record import Event, UserRecord, pack
from service import replay_command
from service.app import create_app
from service.loading import load_bundle
from service.request_replay import ReplayError, find, replay
from tests.service.conftest import RedisServer, client_of
from tests.service.plans import experiment, planned, put_live
from tests.service.test_deadline import slow
from tests.service.world import Recipe, make_world, settings_for

CARL = pack(UserRecord({"city": "Oslo", "age": 31}, (Event("click", 5, (1003,)), Event("search", 6, ("food",)))))
BODIES: list[dict[str, Any]] = [
    {"user_id": "carl", "context": {"scene": "feed", "hour": 12}},
    {"user_id": "carl", "context": {"scene": "search"}, "k": 7, "filters": {"category": {"any_of": ["food", "cars"]}}},
    {"user_id": "nobody", "candidates": list(range(1000, 1040)), "k": 3},
    {"user_id": "carl", "user": {"profile": {"city": "Rome"}, "history": {"clicks": [1005, 1006]}}, "k": 20},
]
ARMS = ("nothing",)
EXPERIMENTS: list[tuple[str, dict[str, Any]]] = [
    ("scores", {"overrides": {"rung": "light", "calibration": {"slope": 0.7, "offset": -0.2}}}),
    ("auction", {"layer": "second", "overrides": {"auction": {"bid_exponent": 0.4}, "prerank_keep": 17}}),
]
LATE = {
    (): "full",
    ("finerank",): "small",
    ("finerank", "finerank.small"): "light",
    ("finerank", "finerank.small", "finerank.light"): "prerank",
    ("prerank",): "qscore",
    ("retrieval",): "qscore",
    ARMS: "light",
}
"""What there was no time for, and what scored then; ARMS: nothing was, but all users are in EXPERIMENTS."""
Answer = dict[str, Any]


@dataclass(frozen=True)
class Log:
    """Requests as they stand in files, and their answers."""

    out: Path
    bundles: Path
    answers: list[Answer]
    paused: int
    """The ad that the first request would else put first."""


@pytest.fixture(scope="module")
def log(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Log:
    """Written as `adrank outcomes` writes them."""
    out = tmp_path_factory.mktemp("log")
    folder = make_world(tmp_path_factory.mktemp("bundles"), Recipe(bundle_id="b1", rungs=("small", "light")))

    async def scenario(redis: Any, number: int, late: tuple[str, ...]) -> list[Answer]:
        prefix = f"replay{number}:"
        redis.set(f"{prefix}carl", CARL)
        settings = settings_for(folder, redis_url=redis_server.url, redis_prefix=prefix, log_entries=1000)
        loaded = load_bundle(folder, settings)
        slow(loaded, *late)
        app = create_app(settings, loaded)
        async with client_of(app) as client:
            if late == ARMS:
                await put_live(app, planned([loaded], *(experiment(name, **more) for name, more in EXPERIMENTS)))
            if not late:
                best = (await client.post("/v1/rank", json=BODIES[0])).json()["ads"][0]["ad_id"]
                await client.put("/v1/ads/flags", json={"flags": [{"ad_id": best, "paused": True}]})
                paused.append(best)
            return [(await client.post("/v1/rank", json=body)).json() for body in (BODIES[:1] if late else BODIES)]

    paused: list[int] = []
    with Redis.from_url(redis_server.url) as redis:
        answers = [answer for i, late in enumerate(LATE) for answer in asyncio.run(scenario(redis, i, late))]
        entries: list[Any] = [each for i in range(len(LATE)) for each in redis.xrange(f"log:replay{i}:served")]
    lines = []
    for name, fields in entries:
        if b"flags" in fields:
            (out / "flags").mkdir(exist_ok=True)
            (out / "flags" / f"{fields[b'digest'].decode()}.json").write_bytes(fields[b"flags"])
            continue
        record = fields.get(b"record")
        line = {"id": name.decode(), "head": json.loads(fields[b"head"]), "asked": fields[b"asked"].decode()}
        lines.append(line | {"record": record and record.decode(), "answer": json.loads(fields[b"answer"])})
    (out / "raw/served/2026-01-01").mkdir(parents=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (out / "raw/served/2026-01-01/1-0_9-0.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return Log(out, folder.parent, answers, paused[0])


def test_every_request_gives_the_same_to_the_bit(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    assert [each["rung"] or each["scored_by"] for each in log.answers[len(BODIES) - 1 :]] == list(LATE.values())
    for answer in log.answers:
        done = replay(find(log.out, answer["request_id"]), log.out, log.bundles)
        assert done.same
        assert done.ads == answer["ads"]
        assert (done.scored_by, done.rung) == (answer["scored_by"], answer["rung"])
        assert done.differing == []
        code = replay_command.main([answer["request_id"], "--log", str(log.out), "--bundles", str(log.bundles)])
        assert code == 0
        assert f"the same {len(answer['ads'])} ads and scores to the bit" in capsys.readouterr().out
    assert len({json.dumps(answer["ads"]) for answer in log.answers}) >= len(log.answers) - 1
    assert log.answers[-1]["arms"] == {"scores": "new", "auction": "new"}
    assert log.answers[-1]["stages"][2]["out"] == 17


def altered(line: dict[str, Any], **head: Any) -> dict[str, Any]:
    return line | {"head": line["head"] | head}


@pytest.fixture
def line(log: Log) -> dict[str, Any]:
    return find(log.out, log.answers[0]["request_id"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda line: line | {"record": line["record"].replace("1003", "1004")}, "user record: the log holds one with"),
        (lambda line: line | {"record": None}, "user record: the log holds None"),
        (lambda line: line | {"asked": line["asked"].replace("12", "13")}, "request: the log holds one with hash"),
        (lambda line: altered(line, bundle_id="gone"), "bundle: 'gone' is not in"),
        (lambda line: altered(line, manifest="0" * 64), "bundle: the manifest of .* has hash"),
        (lambda line: altered(line, flags="f" * 32), "flags of ads: .*f.json is not there"),
        (lambda line: line | {"answer": line["answer"] | {"rung": "tiny"}}, "rung: 'tiny' gave the scores"),
        (lambda line: line | {"answer": None}, "the request failed with status 200"),
    ],
)
def test_an_input_that_differs_is_named(
    log: Log, line: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]], named: str
) -> None:
    with pytest.raises(ReplayError, match=named):
        replay(change(line), log.out, log.bundles)


def test_flags_that_were_altered_are_named(log: Log, line: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(log.out / "flags", tmp_path / "flags")
    (path,) = (tmp_path / "flags").iterdir()
    path.write_text('{"paused": []}')
    with pytest.raises(ReplayError, match=r"flags of ads: .* has hash"):
        replay(line, tmp_path, log.bundles)


def test_without_the_flags_another_ad_would_win(log: Log, line: dict[str, Any]) -> None:
    done = replay(altered(line, flags=None), log.out, log.bundles)
    assert not done.same
    assert done.ads[0]["ad_id"] == log.paused


def test_another_machine_is_named_beside_scores_that_differ(log: Log, line: dict[str, Any]) -> None:
    other = altered(line, runtime=line["head"]["runtime"] | {"onnxruntime": "0.1"}, flags=None)
    done = replay(other, log.out, log.bundles)
    assert done.differing[0].startswith("onnxruntime: '0.1' then")


def test_a_request_nobody_logged(log: Log, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_command.main(["r-0", "--log", str(log.out), "--bundles", str(log.bundles)]) == 2
    assert "request 'r-0' is in none of the 1 files" in capsys.readouterr().err
