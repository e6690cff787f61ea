"""Requests have the shares and popularities that were asked for, and survive a file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.traffic import (
    Mix,
    Request,
    TrafficError,
    World,
    make_requests,
    read_requests,
    write_requests,
    zipf,
)

WORLD = World(
    ads=list(range(1000, 1300)),
    users=[f"u{i}" for i in range(100)],
    context_fields=frozenset({"scene"}),
    histories={"clicks": 20},
)
MIX = Mix(context={"scene": ["feed", "search"], "moon": ["full"]}, score=0.2, candidates=0.5, cold=0.25, given=0.1)


def bodies(requests: list[Request]) -> list[dict[str, Any]]:
    return [json.loads(each.body) for each in requests]


def test_shares_are_those_of_the_mix() -> None:
    n = 4000
    made = make_requests(WORLD, MIX, n, 1)
    read = bodies(made)
    ranks = [body for body, each in zip(read, made, strict=True) if each.path == "/v1/rank"]
    assert len(ranks) / n == pytest.approx(0.8, abs=0.03)
    assert sum("candidates" in body for body in ranks) / len(ranks) == pytest.approx(0.5, abs=0.03)
    assert sum(body["user_id"].startswith("new-") for body in read) / n == pytest.approx(0.25, abs=0.03)
    assert sum("user" in body for body in read) / n == pytest.approx(0.1, abs=0.03)
    assert {body["context"]["scene"] for body in read} == {"feed", "search"}
    assert {name for body in read for name in body["context"]} == {"scene"}, "a field the bundle does not have"
    assert all(len(body["user"]["history"]["clicks"]) <= 20 for body in read if "user" in body)
    sizes = [len(body["candidates"]) for body in ranks if "candidates" in body]
    assert max(sizes) > 5 * min(sizes)
    new = [body["user_id"] for body in read if body["user_id"].startswith("new-")]
    assert len(new) == len(set(new))


def test_popularity_follows_zipfs_law() -> None:
    drawn = np.bincount(zipf(1000, 1.0, 200_000, np.random.default_rng(0)), minlength=1000)
    assert drawn[0] / drawn[9] == pytest.approx(10, rel=0.1)
    assert drawn[:10].sum() / drawn[:100].sum() == pytest.approx(2.929 / 5.187, rel=0.02)  # harmonic numbers
    even = np.bincount(zipf(10, 0.0, 100_000, np.random.default_rng(0)), minlength=10)
    assert even.min() / even.max() > 0.9


def test_a_seed_is_a_sequence() -> None:
    assert make_requests(WORLD, MIX, 50, 1) == make_requests(WORLD, MIX, 50, 1)
    assert make_requests(WORLD, MIX, 50, 1) != make_requests(WORLD, MIX, 50, 2)


def test_without_ads_only_plain_rank_requests_can_be_made() -> None:
    empty = World([], [], frozenset(), {})
    with pytest.raises(TrafficError, match="showed no ads"):
        make_requests(empty, Mix(), 1, 1)
    (one,) = make_requests(empty, Mix(score=0, candidates=0, given=0), 1, 1)
    assert json.loads(one.body)["user_id"] == "new-1-0"


def test_requests_survive_a_file(tmp_path: Path) -> None:
    made = make_requests(WORLD, MIX, 20, 1)
    write_requests(made, tmp_path / "log.jsonl")
    assert read_requests(tmp_path / "log.jsonl") == made


def test_a_line_may_be_a_body_alone(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"user_id": 7, "k": 3}\n\n')
    assert read_requests(tmp_path / "log.jsonl") == [Request("/v1/rank", '{"user_id": 7, "k": 3}')]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no requests"),
        ('{"user_id": 1}\nhello\n', "line 2: no request"),
        ('{"path": "/v1/events", "body": {"user_id": 1}}', "line 1: no request to /v1/rank or /v1/score"),
        ('{"k": 3}', "line 1: no request to"),
        ("[1]", "line 1: no request"),
        ('{"user_id": 1}\n{"user_id": 1, "sugar": 2}', "line 2: no request to /v1/rank: sugar: Extra inputs"),
        ('{"path": "/v1/score", "body": {"user_id": 1}}', "line 1: no request to /v1/score: ads: Field required"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "log.jsonl").write_text(text)
    with pytest.raises(TrafficError, match=words):
        read_requests(tmp_path / "log.jsonl", typed=True)


def test_the_projects_own_mix_states_the_defaults_and_the_demos_scenes() -> None:
    from loadtest.command import MIX as FILE

    read = Mix.model_validate(json.loads(FILE.read_text()))
    assert read.model_copy(update={"context": {}}) == Mix()
    assert {"scene", "region"} == set(read.context)
