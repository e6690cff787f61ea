"""docs/api.md: the calls work as printed, and fields, errors, reasons and metrics are those of the service."""

import ast
import asyncio
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from control.changes import Asked
from control.reports import AuditAnswer, BundleReport, ChangeAnswer, ProcessReport, StateAnswer
from control.state import Change
from service import problem, schemas
from service.admin_routes import ACTIONS
from service.breaker import Breaker
from service.comparison import ShadowOut
from service.errors import StoreError
from service.features import EmbeddedStore
from service.ladder import Why
from service.metrics import Metrics
from service.timing import RequestTiming, StageTime
from service.user_cache import Limits, UserCache
from service.user_features import UserReader
from tests.docs.pages import ROOT, Block, blocks, codes, read, table
from tests.service.conftest import call
from tests.service.world import settings_for

PAGE = read("docs/api.md")
ADDRESS = "http://127.0.0.1:8000"


def examples() -> list[tuple[str, str, Any, Any]]:
    """Method, path, body (None for a GET) and documented answer of each worked call."""
    found: list[tuple[str, str, Any, Any]] = []
    every: list[Block] = blocks(PAGE)
    for asked, answered in pairwise(every):
        if asked.language == "console":
            words = shlex.split(asked.text.removeprefix("$ "))
            assert words[:2] == ["curl", "-s"], asked.text
            assert answered.language == "json", f"no answer is shown for {asked.text}"
            body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
            method = words[words.index("-X") + 1] if "-X" in words else "GET" if body is None else "POST"
            found.append((method, words[2].removeprefix(ADDRESS), body, json.loads(answered.text)))
    return found


def same_keys(said: Any, found: Any, place: str) -> None:
    """AssertionError where the two differ in keys, at any depth; `{}` in `said` stands for anything left out."""
    if isinstance(said, dict) and said:
        assert isinstance(found, dict), place
        assert set(said) == set(found), f"{place}: documented {sorted(said)}, answered {sorted(found)}"
        for name in said:
            same_keys(said[name], found[name], f"{place}.{name}")
    elif isinstance(said, list) and said and isinstance(said[0], dict):
        assert found, place
        same_keys(said[0], found[0], f"{place}.0")


def test_calls_answer_as_documented(exported: Path) -> None:
    """The ids in them are in every simulated marketplace, however large."""

    async def scenario(client: httpx.AsyncClient) -> None:
        for method, path, body, said in examples():
            answer = await client.request(method, path, **({} if body is None else {"json": body}))
            assert answer.is_success == ("error" not in said), answer.text
            found = answer.json()
            same_keys(said, found, path)
            if "error" in said:
                assert {**found["error"], "request_id": ""} == {**said["error"], "request_id": ""}
            if "unknown_ads" in said:
                assert found["unknown_ads"] == said["unknown_ads"]
            if "accepted" in said or "changed" in said:
                assert {**found, "request_id": ""} == {**said, "request_id": ""}
            if "Server-Timing" in answer.headers:
                check_timing(answer.headers["Server-Timing"])

    call(settings_for(exported), scenario)


def check_timing(header: str) -> None:
    """Each part is described."""
    section = PAGE.partition("## Server-Timing")[2].partition("\n## ")[0]
    for part in header.split(", "):
        assert f"`{part.partition(';')[0]}`" in section, part


def test_every_route_has_an_example(exported: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> set[tuple[str, str]]:
        paths = (await client.get("/openapi.json")).json()["paths"]
        return {(method.upper(), path) for path, methods in paths.items() for method in methods}

    routes = call(settings_for(exported), scenario)
    assert routes == {(method, path.partition("?")[0]) for method, path, _, _ in examples()} | {("GET", "/metrics")}
    assert "## GET /metrics" in PAGE


INCOMING = (
    schemas.RankRequest,
    schemas.Filter,
    schemas.Given,
    schemas.ScoreRequest,
    schemas.EventsRequest,
    schemas.EventIn,
    schemas.FlagsRequest,
    schemas.AdFlagsIn,
    schemas.FlagsQuery,
)
ANSWERS: tuple[Any, ...] = (
    schemas.RankResponse,
    schemas.RankedAd,
    schemas.ExcludedAd,
    schemas.StageOut,
    schemas.ScoreResponse,
    schemas.EventsResponse,
    schemas.FlagsChanged,
    schemas.FlagsResponse,
    schemas.AdFlagsOut,
    schemas.BundlesResponse,
    ShadowOut,
    schemas.BundleOut,
    schemas.StateOut,
    schemas.ProcessOut,
    schemas.RungOut,
)
ADMINISTRATION = (StateAnswer, ProcessReport, BundleReport, ChangeAnswer, AuditAnswer, Change)


@pytest.mark.parametrize("model", INCOMING)
def test_fields_of_requests(model: type[BaseModel]) -> None:
    rows = table(PAGE, f"fields {model.__name__}")
    assert [codes(row[0])[0] for row in rows] == list(model.model_fields)
    for row, field in zip(rows, model.model_fields.values(), strict=True):
        assert (row[1] == "yes") == field.is_required(), row


@pytest.mark.parametrize("shape", ANSWERS)
def test_fields_of_answers(shape: Any) -> None:
    said = [name for row in table(PAGE, f"fields {shape.__name__}") for name in codes(row[0])]
    assert sorted(said) == sorted(shape.__annotations__)


@pytest.mark.parametrize("model", ADMINISTRATION)
def test_fields_of_administration(model: type[BaseModel]) -> None:
    said = [name for row in table(PAGE, f"fields {model.__name__}") for name in codes(row[0])]
    assert said == list(model.model_fields)


def test_actions_are_all_changes() -> None:
    said = {codes(row[0])[0]: codes(row[1]) for row in table(PAGE, "actions")}
    wanted = {each.model_fields["action"].default: set(each.model_fields) for each in ACTIONS}
    assert {name: set(fields) for name, fields in said.items()} == {
        name: fields - set(Asked.model_fields) - {"action"} for name, fields in wanted.items()
    }


def test_errors_are_those_of_the_service() -> None:
    wanted = {(str(status), code) for status, code in problem.TABLE.values()}
    wanted |= {(str(status), code) for status, code in problem.HTTP_CODES.items()}
    for status, answer in (("500", problem.unexpected("x")), ("other 4xx", problem.http_problem(418, "", "x"))):
        wanted.add((status, json.loads(bytes(answer.body))["error"]["code"]))
    assert {(row[0], codes(row[1])[0]) for row in table(PAGE, "errors")} == wanted


class BrokenStore(EmbeddedStore):
    """Fails, or answers with rubbish, as told."""

    def __init__(self) -> None:
        super().__init__(lambda: None, 10, 10)
        self.answer: bytes | str = b"{}\n"

    async def get(self, user_id: str) -> bytes | None:
        if isinstance(self.answer, str):
            raise StoreError(self.answer)
        return self.answer


def test_reasons_of_degraded_answers() -> None:
    async def reasons() -> set[str | None]:
        found = set()
        for copies in (0, 1):
            for answer in ("timeout", "store unavailable (NAME)", b"rubbish"):
                store = BrokenStore()
                cache = UserCache(Limits(users=copies, bytes=10_000, stale_s=60.0))
                reader = UserReader(store, Breaker(1, 60.0), Metrics(), cache, 1.0)
                await reader.read("anna", 60.0)
                store.answer = answer
                found |= {(await reader.read("anna", 60.0)).degraded for _ in range(2)}
        return found

    found = asyncio.run(reasons())
    said = {name for row in table(PAGE, "degraded") for name in codes(row[0])}
    stale = next(name for name in said if name.startswith(","))
    users = {name for name in said if name.startswith("user_features")}
    assert found == users | {name + stale for name in users}
    skips = set()
    for node in ast.walk(ast.parse((ROOT / "service/cascade.py").read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "skip":
            stage, _, reason = (ast.unparse(argument).strip("'") for argument in node.args)
            skips |= {f"{stage}: {each}" for each in (get_args(Why) if reason == "why" else [reason])}
    skips |= {f"finerank: NAME, {why}" for why in get_args(Why)}
    assert skips == {name for name in said if name.endswith(("deadline", "load"))}


def test_metrics_are_those_of_the_service() -> None:
    metrics = Metrics()
    timing = RequestTiming(stages=[StageTime("auction", 1, 1)], degraded=["finerank: deadline"], user="known")
    timing.non_finite["finerank"] = 1
    metrics.answered("/v1/rank", 200, 0.001, {"trial": "new"})
    metrics.shadowed("ranked")
    metrics.shadow_log("logged", 1)
    metrics.compared(0.001, 1.0, 1.0, 0.0)
    metrics.ranked(timing)
    metrics.features("known")
    metrics.cache_read("hit")
    metrics.events(1, 1)
    metrics.served_log("logged", 1)
    metrics.log_trimmed("served", 1)
    metrics.flagged({"paused": 1})
    metrics.refused()
    metrics.in_flight(1)
    metrics.versions(2, 1, 1)
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        if not family.name.endswith("_created"):
            found[family.name + ("_total" if family.type == "counter" else "")] = labels
    said = {codes(row[0])[0]: set() if row[1] == "none" else set(row[1].split(", ")) for row in table(PAGE, "metrics")}
    assert said == found
    named = set(re.findall(r"`(adrank_\w+)`", PAGE))
    assert named <= set(found)
