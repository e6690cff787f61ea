"""The documentation describes every route's body and answers, and answers are as documented."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from service import schemas
from service.loaded import LoadedBundle
from tests.service.conftest import call
from tests.service.world import settings_for


@pytest.fixture(scope="module")
def document(folder: Path) -> Any:
    async def scenario(client: httpx.AsyncClient) -> Any:
        return (await client.get("/openapi.json")).json()

    return call(settings_for(folder), scenario)


def test_every_route_documents_its_bodies(document: Any) -> None:
    names = {"/v1/rank": "Rank", "/v1/score": "Score", "/v1/events": "Events"}
    known = document["components"]["schemas"]
    for path, name in names.items():
        route = document["paths"][path]["post"]
        body = route["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": f"#/components/schemas/{name}Request"}
        answer = route["responses"]["200"]["content"]["application/json"]["schema"]
        assert answer == {"$ref": f"#/components/schemas/{name}Response"}
        for status in ("400", "413", "422", "429", "500", "503"):
            problem = route["responses"][status]["content"]["application/json"]["schema"]
            assert problem == {"$ref": "#/components/schemas/Problem"}
        for field in known[f"{name}Request"]["properties"].values():
            assert field["description"]
    for path in ("/v1/bundles", "/healthz", "/readyz", "/metrics"):
        assert document["paths"][path]["get"]["responses"]["200"]["content"]
        assert document["paths"][path]["get"]["description"]


def test_every_reference_is_there(document: Any) -> None:
    known = document["components"]["schemas"]

    def references(part: Any) -> list[str]:
        if isinstance(part, dict):
            own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
            return own + [each for value in part.values() for each in references(value)]
        return [each for value in part for each in references(value)] if isinstance(part, list) else []

    found = references(document)
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in known


def test_answers_are_as_documented(folder: Path, loaded: LoadedBundle) -> None:
    strict = {"strict": True, "extra": "forbid"}

    async def scenario(client: httpx.AsyncClient) -> None:
        asked: list[tuple[str, Any, TypeAdapter[Any]]] = [
            ("/v1/rank", {"user_id": "anna", "candidates": [1000, 5]}, schemas.RANK_RESPONSE),
            ("/v1/score", {"user_id": "anna", "ads": [1000, "5"]}, schemas.SCORE_RESPONSE),
            ("/v1/events", {"events": [{"user_id": 1, "kind": "click", "ad_id": 3}]}, schemas.EVENTS_RESPONSE),
            ("/v1/rank", {}, TypeAdapter(schemas.Problem)),
        ]
        for path, body, adapter in asked:
            adapter.validate_json((await client.post(path, json=body)).content, **strict)  # type: ignore[arg-type]
        bundles = (await client.get("/v1/bundles")).content
        schemas.BUNDLES_RESPONSE.validate_json(bundles)
        only = (await client.get("/v1/bundles")).json()["bundles"][0]
        assert only["bundle_id"] == "world"
        assert only["golden"]["requests"] == 2
        assert only["golden"]["logit_deviation"] == loaded.proof.logit_deviation
        assert only["bytes"] == sum(
            p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.name != "manifest.json"
        )
        assert only["quality"] == {"din": {"auc": 0.7}}
        assert only["filters"] == ["brand", "category"]
        assert (await client.get("/docs")).status_code == 200

    call(settings_for(folder), scenario, loaded)
