"""The client's types are those of the OpenAPI document, field by field, in both directions."""

import json
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from client import calls, schemas
from tests.docs.pages import ROOT

DOCUMENT = json.loads((ROOT / "docs/openapi.json").read_text())
KNOWN = DOCUMENT["components"]["schemas"]
ROUTES = {
    (calls.RANK, "post"): (schemas.RankRequest, schemas.RankResponse),
    (calls.SCORE, "post"): (schemas.ScoreRequest, schemas.ScoreResponse),
    (calls.EVENTS, "post"): (schemas.EventsRequest, schemas.EventsResponse),
    (calls.BUNDLES, "get"): (None, schemas.BundlesResponse),
}
REF = "#/components/schemas/"
MODELS: dict[str, type[BaseModel]] = {
    name: each
    for name, each in vars(schemas).items()
    if isinstance(each, type) and issubclass(each, BaseModel) and each.model_fields
}
OURS = models_json_schema([(each, "validation") for each in MODELS.values()], ref_template=REF + "{model}")[1]["$defs"]


def shape(schema: dict[str, Any]) -> Any:
    """What a schema is, without its bounds, words and defaults; alternatives in no order."""
    if "$ref" in schema:
        return schema["$ref"].removeprefix(REF)
    if "anyOf" in schema:
        return ("any", frozenset(shape(each) for each in schema["anyOf"]))
    if "enum" in schema:
        return ("one of", frozenset(schema["enum"]))
    if schema.get("type") == "array":
        return ("array", shape(schema["items"]))
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return ("object", shape(inner) if isinstance(inner, dict) else "anything")
    return schema.get("type", "anything")


def fields(schema: dict[str, Any]) -> dict[str, tuple[Any, bool]]:
    """Field -> its shape, and whether it is needed."""
    needed = schema.get("required", [])
    return {name: (shape(each), name in needed) for name, each in schema["properties"].items()}


def reached(start: str) -> set[str]:
    """Schemas of the document that this one is made of, itself too."""
    found, waiting = set(), {start}
    while waiting:
        name = waiting.pop()
        found.add(name)
        names = {each.partition('"')[0] for each in json.dumps(KNOWN[name]).split(REF)[1:]}
        waiting |= names - found
    return found


@pytest.mark.parametrize("name", sorted(MODELS))
def test_each_type_is_the_documented_one(name: str) -> None:
    assert fields(OURS[name]) == fields(KNOWN[name])


def test_no_type_is_missing_and_none_is_left_over() -> None:
    wanted = {"Problem"}
    for path, method in ROUTES:
        route = DOCUMENT["paths"][path][method]
        bodies = [route["requestBody"]] if "requestBody" in route else []
        for body in [*bodies, route["responses"]["200"]]:
            wanted.add(body["content"]["application/json"]["schema"]["$ref"].removeprefix(REF))
    everything: set[str] = set().union(*map(reached, wanted))
    assert everything == set(MODELS)


@pytest.mark.parametrize(("route", "types"), ROUTES.items(), ids=[path for path, _ in ROUTES])
def test_each_route_takes_and_gives_what_the_client_does(route: tuple[str, str], types: tuple[Any, Any]) -> None:
    said = DOCUMENT["paths"][route[0]][route[1]]
    asked, answered = types
    assert ("requestBody" in said) == (asked is not None)
    if asked is not None:
        assert said["requestBody"]["content"]["application/json"]["schema"]["$ref"] == REF + asked.__name__
    assert said["responses"]["200"]["content"]["application/json"]["schema"]["$ref"] == REF + answered.__name__


def test_the_comparison_sees_every_difference() -> None:
    base = OURS["RankedAd"]
    for changed in (
        {**base, "properties": {**base["properties"], "bid": {"type": "string"}}},
        {**base, "properties": {**base["properties"], "new": {"type": "string"}}},
        {**base, "properties": {"ad_id": base["properties"]["ad_id"]}},
        {**base, "required": base["required"][1:]},
    ):
        assert fields(changed) != fields(base)


def test_every_problem_that_the_service_documents_has_its_error() -> None:
    from client.errors import BY_STATUS
    from service.problem import TABLE

    assert set(BY_STATUS) == {status for status, _ in TABLE.values()} - {409}  # of administration alone
