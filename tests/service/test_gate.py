"""Every check of the gate, by a bundle that it refuses: named, with numbers, and as the last one that was made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle.manifest import MANIFEST
from bundle.record import pack
from bundle.signature import make_key, sign
from control.reports import Check
from service.gate import Job
from service.gate_process import judge
from service.recent import Recent
from service.user_cache import StoredUser
from tests.service import spoilt_bundles
from tests.service.world import Recipe, demo_records, make_world, settings_for

ALL = [
    "store",
    "checksum",
    "signature",
    "format",
    "contract",
    "fields",
    "golden",
    "finite",
    "requests",
    "overlap@10",
    "shift",
    "psi",
    "latency",
    "memory",
]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("live"), Recipe(bundle_id="live"))


def bodies() -> list[tuple[dict[str, Any], str]]:
    """Requests of the demo users and of somebody unknown, some with conditions of their own."""
    users = [*demo_records(), "nobody"]
    found = []
    for i in range(24):
        user = users[i % len(users)]
        body: dict[str, Any] = {
            "user_id": user,
            "context": {"scene": ["feed", "search", "story"][i % 3], "hour": i},
            "k": 1 + i,
        }
        if i % 6 == 4:
            body["candidates"] = [1000 + j for j in range(i, 60)]
        if i % 6 == 5:
            body["filters"] = {"category": {"any_of": ["books", "cars"]}}
        found.append((body, user))
    return found


def recent(bodies: list[tuple[dict[str, Any], str]]) -> Recent:
    ring, records = Recent(200), demo_records()
    for body, user in bodies:
        ring.add(json.dumps(body).encode(), StoredUser(pack(records[user])) if user in records else None)
    return ring


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    recent(bodies()).write(tmp_path / "requests")
    return tmp_path / "requests"


def judged(
    folder: Path, live: Path | None, requests: Path | None, fingerprint: bool = True, **settings: Any
) -> list[Check]:
    """The checks that were made."""
    job = Job(
        bundle_id="next",
        place=str(folder.parent),
        cache=str(folder.parent / "cache"),
        live_id=None if live is None else "live",
        live=None if live is None else str(live),
        requests=None if requests is None else str(requests),
    )
    lines = list(judge(job, settings_for(folder, **settings)))
    assert bool(lines[-1].fingerprint) is fingerprint
    return [line.check for line in lines if line.check is not None]


def refused_by(checks: list[Check]) -> Check:
    assert [check.name for check in checks if not check.passed] == [checks[-1].name], checks
    assert [check.name for check in checks] == ALL[: len(checks)]
    return checks[-1]


def next_bundle(root: Path, spoil: Callable[[Path], None] = lambda _: None, **recipe: Any) -> Path:
    folder = make_world(root, Recipe(bundle_id="next", **recipe))
    spoil(folder)
    return folder


def test_a_good_bundle_passes_all_with_numbers(tmp_path: Path, live: Path, requests: Path) -> None:
    checks = judged(next_bundle(tmp_path), live, requests)
    assert [check.name for check in checks] == ALL
    assert all(check.passed for check in checks), checks
    found = {check.name: check for check in checks}
    assert found["format"].found == found["format"].limit == 2
    assert 0 <= float(found["golden"].found or 0) <= float(found["golden"].limit or 0) == 1e-5
    assert (found["requests"].found, found["requests"].note) == (0, "requests 24")
    assert (found["overlap@10"].found, found["shift"].found, found["psi"].found) == (1, 0, 0)
    assert float(found["latency"].found or 0) > 0
    assert 0 < float(found["memory"].found or 0) < float(found["memory"].limit or 0)


@pytest.mark.parametrize(
    ("spoil", "name", "found", "limit", "words"),
    [
        (spoilt_bundles.corrupted, "checksum", 1.0, 0.0, "finerank.onnx: sha256"),
        (spoilt_bundles.truncated, "checksum", 1.0, 0.0, "fields.npy: "),
        (lambda folder: (folder / MANIFEST).write_text("{"), "checksum", 1.0, 0.0, "manifest.json"),
        (spoilt_bundles.of_another_format, "format", 3.0, 2.0, "manifest.json: format"),
        (spoilt_bundles.of_another_contract, "contract", 1.0, 0.0, "'weather'"),
        (spoilt_bundles.with_nan_weights, "golden", "nan", 1e-5, "finerank.onnx, golden row 0"),
        (spoilt_bundles.with_nan_vectors, "finite", None, 0.0, "of the live bundle's"),
        (spoilt_bundles.surer, "shift", None, 0.5, "ads that both know"),
        (spoilt_bundles.too_slow, "latency", None, 3.0, "ms against"),
    ],
)
def test_a_spoilt_bundle_is_refused_with_numbers(
    tmp_path: Path,
    live: Path,
    requests: Path,
    spoil: Callable[[Path], None],
    name: str,
    found: float | str | None,
    limit: float,
    words: str,
) -> None:
    check = refused_by(judged(next_bundle(tmp_path, spoil), live, requests, gate_latency_ratio=3))
    assert (check.name, check.limit) == (name, limit)
    assert words in check.note
    if found is None:
        assert float(check.found or 0) > limit
    else:
        assert check.found == found


def test_golden_rows_that_differ_on_this_processor_are_refused(tmp_path: Path, live: Path) -> None:
    check = refused_by(judged(next_bundle(tmp_path, golden_shift=0.01), live, None))
    assert check.name == "golden"
    assert check.found == pytest.approx(0.01, rel=0.01)
    assert check.limit == 1e-5


def test_signatures_are_asked_for_where_keys_are_set(tmp_path: Path, live: Path, requests: Path) -> None:
    folder, public = next_bundle(tmp_path / "b"), make_key(tmp_path / "key.pem")
    other = make_key(tmp_path / "other.pem")
    check = refused_by(judged(folder, live, requests, bundle_keys=f"{public}, {other}"))
    assert (check.name, check.found, check.limit) == ("signature", 0, 1)
    assert "is not signed, and one of 2 keys" in check.note
    sign(folder, tmp_path / "key.pem")
    assert judged(folder, live, requests, bundle_keys=public)[-1].passed
    check = refused_by(judged(folder, live, requests, bundle_keys=other))
    assert (check.name, check.found, check.limit) == ("signature", 0, 1)
    assert f"accepted: {other}" in check.note


def test_a_bundle_that_is_not_there_is_refused(tmp_path: Path, live: Path) -> None:
    check = refused_by(judged(tmp_path / "next", live, None, fingerprint=False))
    assert (check.name, check.found, check.limit) == ("store", 0, 1)
    assert "has no bundle 'next'" in check.note


def test_a_bundle_under_the_name_of_another_is_refused(tmp_path: Path, live: Path) -> None:
    folder = make_world(tmp_path, Recipe(bundle_id="older"))
    folder.rename(tmp_path / "next")
    check = refused_by(judged(tmp_path / "next", live, None))
    assert check.name == "format"
    assert "holds the bundle 'older'" in check.note


def test_fields_that_requests_may_name_now_must_stay(tmp_path: Path, live: Path, requests: Path) -> None:
    folder = next_bundle(tmp_path, filters=("brand",))
    check = refused_by(judged(folder, live, requests))
    assert (check.name, check.found, check.limit) == ("fields", 1, 0)
    assert "filters.category" in check.note
    check = refused_by(judged(folder, live, requests, gate_lost_fields=1))
    assert (check.name, check.found, check.limit) == ("requests", 4 / 24, 0)
    assert "filters.category is not known" in check.note
    assert judged(folder, live, requests, gate_lost_fields=1, gate_refused_share=0.2)[-1].passed


def test_answers_that_have_too_little_in_common_are_refused(tmp_path: Path, live: Path, requests: Path) -> None:
    folder = next_bundle(tmp_path, spoilt_bundles.of_another_taste)
    check = refused_by(judged(folder, live, requests, gate_overlap=0.9))
    assert (check.name, check.limit, check.note) == ("overlap@10", 0.9, "of 24 answers")
    assert 0 <= float(check.found or 0) < 0.9


def test_answers_whose_scores_are_spread_otherwise_are_refused(tmp_path: Path, live: Path, requests: Path) -> None:
    folder = next_bundle(tmp_path, spoilt_bundles.surer)
    check = refused_by(judged(folder, live, requests, gate_score_shift=100))
    assert (check.name, check.limit) == ("psi", 1)
    assert float(check.found or 0) > 1


def test_memory_that_is_not_there_is_refused(tmp_path: Path, live: Path, requests: Path) -> None:
    check = refused_by(judged(next_bundle(tmp_path), live, requests, gate_memory_share=1e-6))
    assert check.name == "memory"
    assert float(check.found or 0) > float(check.limit or 0)
    assert "of files that they share" in check.note


def test_without_requests_what_needs_them_is_skipped_and_says_so(tmp_path: Path, live: Path) -> None:
    Recent(10).write(tmp_path / "requests")
    folder = next_bundle(tmp_path / "b", spoilt_bundles.too_slow)
    for requests in (None, tmp_path / "requests"):
        checks = judged(folder, live, requests)
        assert [check.name for check in checks] == ALL
        assert [(check.name, check.found) for check in checks if "requests 0" in check.note] == [
            ("requests", 0),
            ("overlap@10", None),
            ("shift", None),
            ("psi", None),
            ("latency", None),
        ]


def test_without_a_live_bundle_it_says_so(tmp_path: Path, requests: Path) -> None:
    checks = judged(next_bundle(tmp_path), None, requests)
    assert [check.name for check in checks] == [name for name in ALL if name != "fields"]
    assert next(check.note for check in checks if check.name == "latency") == "skipped: requests 0, nothing is live"


def test_a_live_bundle_that_is_gone_says_so(tmp_path: Path, requests: Path) -> None:
    checks = judged(next_bundle(tmp_path), tmp_path / "gone", requests)
    assert "the live bundle 'live' is not on disk any more" in checks[-2].note


def test_requests_may_be_demanded(tmp_path: Path, live: Path, requests: Path) -> None:
    folder = next_bundle(tmp_path)
    assert judged(folder, live, requests, gate_min_requests=24)[-1].passed
    check = refused_by(judged(folder, live, requests, gate_min_requests=25))
    assert (check.name, check.found, check.limit) == ("requests", 24, 25)
    check = refused_by(judged(folder, live, None, gate_min_requests=1))
    assert check.note == "gate_min_requests asks for more: none was seen yet"


def test_requests_that_the_live_bundle_refuses_do_not_count(tmp_path: Path, live: Path) -> None:
    odd = ({"user_id": "anna", "context": {"weather": "rain"}}, "anna")
    recent([*bodies()[:3], odd]).write(tmp_path / "requests")
    checks = judged(next_bundle(tmp_path / "b"), live, tmp_path / "requests")
    assert next(check.note for check in checks if check.name == "requests") == "requests 3"


def test_an_error_that_nobody_expected_is_a_refusal(tmp_path: Path, live: Path) -> None:
    (tmp_path / "requests").write_text("rubbish\n")
    checks = judged(next_bundle(tmp_path / "b"), live, tmp_path / "requests")
    assert (checks[-1].name, checks[-1].passed) == ("gate", False)
    assert "ContractError: " in checks[-1].note
    assert "requests, line 1" in checks[-1].note
