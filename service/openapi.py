"""The OpenAPI document: FastAPI's own, and the models of the bodies that routes parse themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.admin_routes import ACTIONS
from service.middleware import API
from service.schemas import EventsRequest, FlagsRequest, RankRequest, ScoreRequest

TEMPLATE = "#/components/schemas/{model}"


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document, made once and kept by the application."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        parsed: tuple[type[BaseModel], ...] = (RankRequest, ScoreRequest, EventsRequest, FlagsRequest, *ACTIONS)
        bodies = models_json_schema([(model, "validation") for model in parsed], ref_template=TEMPLATE)[1]["$defs"]
        made["components"]["schemas"].update(bodies)
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in made["paths"].items():
            for each in operations.values() if path.startswith(API) else ():
                each["security"] = [{"key": []}, {}]  # {}: on the loopback address there may be no key
        app.openapi_schema = made
    return app.openapi_schema
