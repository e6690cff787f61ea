"""Administration over HTTP: who is let in, what is refused and how it is said."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.conftest import call
from tests.service.world import settings_for

KEY = "a key of the test's own"
RIGHT = {"Authorization": f"Bearer {KEY}"}
CHANGES = "/v1/admin/changes"
SERVE = {"action": "serve", "control": {"prerank_keep": 50}, "who": "anna", "why": "to see"}


def answers(folder: Path, *asked: tuple[str, str, Any, dict[str, str]], **settings: Any) -> list[httpx.Response]:
    """The answers to (method, path, body, headers), one after the other."""

    async def scenario(client: httpx.AsyncClient) -> list[httpx.Response]:
        return [
            await client.request(method, path, headers=headers, **({} if body is None else {"json": body}))
            for method, path, body, headers in asked
        ]

    found: list[httpx.Response] = call(settings_for(folder, **settings), scenario)
    return found


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "/v1/admin/state", None), ("POST", CHANGES, SERVE), ("GET", "/v1/admin/audit", None)],
)
def test_only_the_key_opens_it(folder: Path, method: str, path: str, body: Any) -> None:
    wrong = {"Authorization": "Bearer another key of that length"}
    none, other, right = answers(
        folder, (method, path, body, {}), (method, path, body, wrong), (method, path, body, RIGHT), admin_key=KEY
    )
    assert (none.status_code, other.status_code, right.status_code) == (401, 401, 200)
    assert none.json()["error"]["code"] == "unauthorized"
    assert "none was given" in none.json()["error"]["message"]
    assert KEY not in none.text + other.text


def test_scoring_does_not_ask_for_it(folder: Path) -> None:
    (answer,) = answers(folder, ("POST", "/v1/rank", {"user_id": "anna"}, {}), admin_key=KEY)
    assert answer.status_code == 200


def test_a_change_is_served_and_in_the_audit_log(folder: Path) -> None:
    changed, audit, ranked = answers(
        folder,
        ("POST", CHANGES, SERVE, {}),
        ("GET", "/v1/admin/audit?limit=1", None, {}),
        ("GET", "/v1/admin/state", None, {}),
    )
    assert changed.json()["version"] == 2
    (line,) = audit.json()["changes"]
    assert (line["who"], line["why"], line["action"]) == ("anna", "to see", "serve")
    assert ranked.json()["wanted"]["control"]["bundle"] == "world", "a bundle that is not named stays"
    assert ranked.json()["wanted"]["control"]["prerank_keep"] == 50


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "action", "must be one of serve, start, ramp"),
        ({**SERVE, "action": "explode"}, "action", "must be one of"),
        ({**SERVE, "who": ""}, "who", "at least 1"),
        ({**SERVE, "control": {"prerank_keep": 0}}, "control.prerank_keep", "greater than or equal to 1"),
        ({**SERVE, "colour": "red"}, "colour", "not permitted"),
        ({"action": "stop", "experiment": "none", "who": "a", "why": "b"}, None, "'none' is not known; running: none"),
        ({"action": "rollback", "to": 77, "who": "a", "why": "b"}, None, "version 77 is not kept"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, body: Any, field: str | None, said: str) -> None:
    (answer,) = answers(folder, ("POST", CHANGES, body, {}))
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field
    assert said in answer.json()["error"]["message"]


def test_another_version_than_expected_is_a_conflict(folder: Path) -> None:
    (answer,) = answers(folder, ("POST", CHANGES, {**SERVE, "expected": 9}, {}))
    assert answer.status_code == 409
    assert answer.json()["error"]["message"] == "version 9 was to be replaced, the state is at 1: read it and try again"


def test_a_body_that_is_no_json_is_400(folder: Path) -> None:
    async def scenario(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(CHANGES, content=b"{")

    assert call(settings_for(folder), scenario).status_code == 400


@pytest.mark.parametrize("limit", ["0", "1001", "many", "-1"])
def test_the_limit_of_the_audit_log_has_bounds(folder: Path, limit: str) -> None:
    (answer,) = answers(folder, ("GET", f"/v1/admin/audit?limit={limit}", None, {}))
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "limit"
