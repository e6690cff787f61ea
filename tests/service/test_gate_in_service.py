"""The gate in a real service: what it says is seen over HTTP, and who asks for ads notices nothing."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from service.file_state import FileState
from tests.patience import PATIENCE_S, until
from tests.service import spoilt_bundles
from tests.service.fleet import want
from tests.service.test_gate import ALL
from tests.service.test_serve import served
from tests.service.test_swap import standing
from tests.service.world import Recipe, make_world

ASKED = {"user_id": "anna", "context": {"scene": "feed"}, "k": 5}


def test_a_refused_bundle_stays_visible_and_a_good_one_is_tried_on_requests(tmp_path: Path) -> None:
    live = make_world(tmp_path / "store")
    make_world(tmp_path / "store", Recipe(bundle_id="next"))
    spoilt_bundles.with_nan_weights(make_world(tmp_path / "store", Recipe(bundle_id="bad")))
    store = FileState(tmp_path / "state", 5.0)
    options = ["--state-folder", str(tmp_path / "state"), "--bundle-cache", str(tmp_path / "cache")]
    with served(live, *options) as service:

        def rank() -> str:
            answer = httpx.post(f"{service.url}/v1/rank", json=ASKED, timeout=PATIENCE_S)
            assert answer.status_code == 200
            return str(answer.json()["bundle_id"])

        def report(bundle_id: str) -> dict[str, Any] | None:
            assert rank() in ("world", "next")
            (process,) = standing(service.url)["processes"]
            return next((each for each in process["bundles"] if each["bundle_id"] == bundle_id), None)

        def status(bundle_id: str) -> str | None:
            found = report(bundle_id)
            return None if found is None else str(found["status"])

        for _ in range(12):
            assert rank() == "world"
        asyncio.run(want(store, "bad"))
        until(lambda: status("bad") == "refused", lambda: standing(service.url))
        found = report("bad")
        assert found is not None
        assert found["error"].startswith("golden: found nan, limit 1e-05")
        assert [check["name"] for check in found["checks"]] == ALL[: ALL.index("golden") + 1]
        assert (standing(service.url)["agreed"], rank()) == (1, "world")

        asyncio.run(want(store, "next"))
        until(lambda: rank() == "next", lambda: standing(service.url))
        found = report("next")
        assert found is not None
        assert [check["name"] for check in found["checks"]] == ALL
        requests = next(check["note"] for check in found["checks"] if check["name"] == "requests")
        assert int(requests.removeprefix("requests ")) >= 12
        assert status("bad") == "refused"
