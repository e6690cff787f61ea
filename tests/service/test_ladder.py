"""A bundle of several fine-rankers: which of them answers, and what is said of it."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle.calibration import Calibration
from bundle.errors import ContractError, GoldenError, IntegrityError
from bundle.folder import open_bundle
from bundle.manifest import MANIFEST, read_manifest
from service.app import create_app
from service.errors import SettingsError
from service.features import EmbeddedStore
from service.ladder import turn_of
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.settings import Settings
from tests.service.conftest import call, client_of, post
from tests.service.graphs import RUNGS
from tests.service.test_deadline import slow
from tests.service.test_loading import check_refused
from tests.service.world import Recipe, common_of, demo_records, expected_logits, make_world, settings_for

CONTEXT = {"scene": "feed", "hour": 12}
ASK: dict[str, Any] = {"user_id": "anna", "context": CONTEXT, "k": 5}
SCORE: dict[str, Any] = {"user_id": "anna", "context": CONTEXT, "ads": [1000, 1007, 1001, 1050]}
PLACES = 10
FLOOD = 9
"""Requests at once: the first to go on finds nobody waiting, behind the second 7 wait, more than half of the places."""


@pytest.fixture(scope="module")
def laddered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("laddered"), Recipe(rungs=("small", "light")))


def opened(folder: Path, **changed: Any) -> tuple[Settings, LoadedBundle]:
    settings = settings_for(folder, **changed)
    return settings, load_bundle(folder, settings)


def check_scores(folder: Path, answer: dict[str, Any], rung: str) -> None:
    """That every pctr of a rank or score answer is this rung's."""
    bundle = open_bundle(folder)
    ids = [ad["ad_id"] for ad in answer["ads"]] if "ads" in answer else SCORE["ads"]
    found = [ad["pctr"] for ad in answer["ads"]] if "ads" in answer else answer["pctr"]
    rows = np.array([bundle.ads.index.id_of(each) for each in ids])
    common = common_of(bundle, demo_records()["anna"], CONTEXT)
    logits = expected_logits(common, bundle.ads.fields[rows], bundle.ads.numbers[rows], rung)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-6)
    assert (answer["scored_by"], answer["rung"]) == ("finerank", rung)


@pytest.mark.parametrize(("setting", "rung"), [("auto", "full"), ("off", "full"), ("full", "full"), ("light", "light")])
def test_a_rung_may_be_pinned(laddered: Path, setting: str, rung: str) -> None:
    settings, loaded = opened(laddered, ladder=setting)
    for path, body in (("/v1/rank", ASK), ("/v1/score", SCORE)):
        answer = post(settings, path, body, loaded)
        check_scores(laddered, answer, rung)
        assert answer["degraded"] == []
    assert [each.name for each in loaded.ladder.rungs] == (["full", *RUNGS] if setting == "auto" else [rung])


def test_a_rung_that_is_not_there_stops_the_start(laddered: Path, folder: Path) -> None:
    with pytest.raises(SettingsError, match="ladder is 'tiny', the bundle knows auto, off, full, small, light"):
        opened(laddered, ladder="tiny")
    with pytest.raises(SettingsError, match="ladder is 'light', the bundle knows auto, off, full"):
        opened(folder, ladder="light")


@pytest.mark.parametrize(("late", "rung"), [(("finerank",), "small"), (("finerank", "finerank.small"), "light")])
def test_without_time_for_the_best_rung_the_best_that_fits_answers(
    laddered: Path, late: tuple[str, ...], rung: str
) -> None:
    for path, body in (("/v1/rank", ASK), ("/v1/score", SCORE)):
        settings, loaded = opened(laddered)
        slow(loaded, *late)
        answer = post(settings, path, body, loaded)
        check_scores(laddered, answer, rung)
        assert answer["degraded"] == [f"finerank: {rung}, deadline"]
        if path == "/v1/rank":
            stage = next(stage for stage in answer["stages"] if stage["name"] == "finerank")
            assert (stage["degraded"], stage["note"]) == (None, f"{rung}, deadline")


def test_when_no_rung_fits_the_pre_rank_order_is_answered(laddered: Path) -> None:
    for path, body in (("/v1/rank", ASK), ("/v1/score", SCORE)):
        settings, loaded = opened(laddered)
        slow(loaded, "finerank", "finerank.small", "finerank.light")
        answer = post(settings, path, body, loaded)
        assert (answer["scored_by"], answer["rung"]) == ("prerank", None)
        assert answer["degraded"] == ["finerank: deadline"]


def test_a_pinned_rung_that_does_not_fit_is_not_replaced(laddered: Path) -> None:
    settings, loaded = opened(laddered, ladder="small")
    slow(loaded, "finerank.small")
    answer = post(settings, "/v1/rank", ASK, loaded)
    assert (answer["scored_by"], answer["rung"], answer["degraded"]) == ("prerank", None, ["finerank: deadline"])


class GatheringStore(EmbeddedStore):
    """Answers once so many readers have come."""

    def __init__(self, readers: int) -> None:
        super().__init__(lambda: None, 10, 10, 10_000)
        self.missing = readers
        self.all_here = asyncio.Event()

    async def get(self, user_id: str) -> bytes | None:
        self.missing -= 1
        if self.missing <= 0:
            self.all_here.set()
        await self.all_here.wait()
        return None


def flooded(settings: Settings, loaded: LoadedBundle, after: int = 0) -> tuple[list[dict[str, Any]], str]:
    """FLOOD requests of different users at once, then `after` further ones, one after the other; and the metrics."""

    async def scenario() -> tuple[list[dict[str, Any]], str]:
        async with client_of(create_app(settings, loaded, GatheringStore(FLOOD))) as client:

            def ask(user: int) -> Awaitable[httpx.Response]:
                return client.post("/v1/rank", json=ASK | {"user_id": user})

            answers = await asyncio.gather(*(ask(i) for i in range(FLOOD)))
            answers += [await ask(FLOOD + i) for i in range(after)]
            assert {answer.status_code for answer in answers} == {200}
            return [answer.json() for answer in answers], (await client.get("/metrics")).text

    return asyncio.run(scenario())


def test_a_flood_steps_down_and_recovers(laddered: Path) -> None:
    """7 requests wait for 10 places, far within their deadline: the next rung, and no further before these had their
    turn. Then nobody waits, and the full rung is taken again."""
    settings, loaded = opened(laddered, max_in_flight=PLACES, features_timeout_ms=7000)
    answers, metrics = flooded(settings, loaded, after=2)
    rungs = [answer["rung"] for answer in answers]
    assert (sorted(rungs[:FLOOD]), rungs[FLOOD:]) == (["full", *["small"] * 8], ["full", "full"])
    notes = {"full": [], "small": ["finerank: small, load"]}
    assert [answer["degraded"] for answer in answers] == [notes[rung] for rung in rungs]
    assert 'adrank_rung_total{rung="small"} 8.0' in metrics
    assert 'adrank_rung_total{rung="full"} 3.0' in metrics
    assert 'adrank_degraded_total{what="finerank",why="small, load"} 8.0' in metrics
    assert 'adrank_stage_seconds_count{stage="finerank.small"} 8.0' in metrics
    assert 'adrank_stage_seconds_count{stage="finerank"} 3.0' in metrics
    assert "adrank_ladder_step 0.0" in metrics


def test_turns_that_would_take_half_the_deadline_step_down(laddered: Path) -> None:
    """With places enough, what counts is what a turn takes: of the full rung, by its estimate, far too long."""
    settings, loaded = opened(laddered, max_in_flight=10_000, features_timeout_ms=7000)
    for _ in range(100):
        loaded.estimates.observe(turn_of("full"), 1, settings.default_deadline_ms / FLOOD)
    answers, _ = flooded(settings, loaded)
    assert sorted(answer["rung"] for answer in answers) == ["full", *["small"] * 8]


def test_without_pressure_a_flood_stays_on_the_full_rung(laddered: Path) -> None:
    settings, loaded = opened(laddered, max_in_flight=10_000, features_timeout_ms=7000)
    answers, _ = flooded(settings, loaded)
    assert {answer["rung"] for answer in answers} == {"full"}


@pytest.mark.parametrize("setting", ["off", "small"])
def test_no_load_moves_a_rung_that_is_pinned(laddered: Path, setting: str) -> None:
    settings, loaded = opened(laddered, max_in_flight=PLACES, features_timeout_ms=7000, ladder=setting)
    answers, _ = flooded(settings, loaded)
    assert {answer["rung"] for answer in answers} == {"full" if setting == "off" else setting}


def test_below_the_last_rung_the_load_leaves_the_pre_rank_order(laddered: Path) -> None:
    settings, loaded = opened(laddered)
    loaded.ladder.gate.step = 3
    loaded.ladder.gate._hold_until = 3
    answer = post(settings, "/v1/rank", ASK, loaded)
    assert (answer["scored_by"], answer["rung"], answer["degraded"]) == ("prerank", None, ["finerank: load"])
    answer = post(settings, "/v1/score", SCORE, loaded)
    assert (answer["scored_by"], answer["rung"], answer["degraded"]) == ("prerank", None, ["finerank: load"])


def test_the_load_and_a_deadline_add_up(laddered: Path) -> None:
    settings, loaded = opened(laddered)
    loaded.ladder.gate.step, loaded.ladder.gate._hold_until = 1, 1
    slow(loaded, "finerank.small")
    answer = post(settings, "/v1/rank", ASK, loaded)
    assert (answer["rung"], answer["degraded"]) == ("light", ["finerank: light, deadline"])


def test_each_rung_has_its_own_calibration(tmp_path: Path) -> None:
    def ask(folder: Path, late: tuple[str, ...]) -> list[float]:
        settings, loaded = opened(folder)
        slow(loaded, *late)
        return [float(each) for each in post(settings, "/v1/score", SCORE, loaded)["pctr"]]

    folder = make_world(tmp_path, Recipe(rungs=("light",)))
    plain = {late: ask(folder, late) for late in ((), ("finerank",))}
    bent = Calibration(method="platt", logits=(-4.0, 1.0), calibrated=(-2.0, 0.0), slope=0.4)
    manifest = read_manifest(folder)
    stage = manifest.stages.finerank
    rung = stage.ladder[0].model_copy(update={"calibration": bent})
    stages = manifest.stages.model_copy(update={"finerank": stage.model_copy(update={"ladder": (rung,)})})
    (folder / MANIFEST).write_text(manifest.model_copy(update={"stages": stages}).model_dump_json())
    assert ask(folder, ()) == plain[()], "the full rung is not corrected"
    raw = np.array(plain[("finerank",)])
    np.testing.assert_allclose(
        ask(folder, ("finerank",)), 1 / (1 + np.exp(-bent.of(np.log(raw / (1 - raw))))), atol=1e-6
    )


def test_every_rung_is_warm(laddered: Path) -> None:
    _, loaded = opened(laddered)
    for rung in loaded.ladder.rungs:
        assert 0 < loaded.estimates.of(rung.key, 30) < loaded.estimates.of(turn_of(rung.name), 1)


def test_the_bundle_says_what_its_rungs_are_worth(laddered: Path, folder: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> Any:
        return (await client.get("/v1/bundles")).json()["bundles"][0]

    found = call(settings_for(laddered, ladder="small"), scenario)
    assert [(each["name"], each["model"], each["loaded"]) for each in found["ladder"]] == [
        ("full", "din", False),
        ("small", "dnn", True),
        ("light", "dnn", False),
    ]
    assert [each["worth"]["p50_ms"] for each in found["ladder"]] == [8.0, 4.0, 2.0]
    assert [each["worth"]["quality"]["auc"] for each in found["ladder"]] == [0.7, 0.65, 0.6]
    assert [each["expected_ms"] is None for each in found["ladder"]] == [True, False, True]
    assert found["ladder_step"] == 0
    (only,) = call(settings_for(folder), scenario)["ladder"]
    assert (only["name"], only["loaded"], only["worth"]) == ("full", True, None)


def test_the_header_and_the_log_name_the_rung(laddered: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings, loaded = opened(laddered)
    slow(loaded, "finerank")

    async def scenario(client: httpx.AsyncClient) -> str:
        return (await client.post("/v1/rank", json=ASK)).headers["server-timing"]

    with caplog.at_level("INFO", "adrank.request"):
        header = call(settings, scenario, loaded)
    assert ', finerank;desc="small";dur=' in header
    assert " rung=small degraded=['finerank: small, deadline'] " in caplog.text


def test_a_changed_byte_of_a_rung_is_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path, Recipe(rungs=("light",)))
    content = bytearray((folder / "finerank-light.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "finerank-light.onnx").write_bytes(content)
    check_refused(folder, IntegrityError, "finerank-light.onnx", "sha256")


def test_golden_rows_of_a_rung_that_differ_are_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path, Recipe(rungs=("small", "light"), rung_shift=0.01))
    check_refused(folder, GoldenError, "finerank-small.onnx", "golden row 0", "0.01", "1e-05")


def test_golden_rows_without_a_rung_are_refused(tmp_path: Path) -> None:
    folder = make_world(tmp_path, Recipe(rungs=("small", "light")))
    manifest = read_manifest(folder)
    stage = manifest.stages.finerank
    fewer = stage.model_copy(update={"ladder": stage.ladder[:1]})
    stages = manifest.stages.model_copy(update={"finerank": fewer})
    (folder / MANIFEST).write_text(manifest.model_copy(update={"stages": stages}).model_dump_json())
    check_refused(folder, ContractError, "golden.npz", "['light', 'small']", "['small']")
