"""The routes of administration, each behind the key of the setting `admin_key`."""

from typing import Any, get_args

from fastapi import APIRouter, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from control.changes import CHANGE, AnyChange
from control.reports import AuditAnswer, ChangeAnswer, StateAnswer
from service.admin import MOST_AUDIT, AdminDesk
from service.credentials import Credential
from service.errors import InvalidRequestError, MalformedBodyError
from service.schemas import Problem

PREFIX = "/v1/admin/"
JSON = "application/json"
ACTIONS: tuple[type[BaseModel], ...] = get_args(get_args(AnyChange)[0])
"""The models of all changes."""
AUDITED = 100
"""Lines of the audit log when nothing is said."""
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No key, or a wrong one"},
    422: {"model": Problem, "description": "A field is wrong, or the change is impossible as the state stands"},
    503: {"model": Problem, "description": "No state yet, or its store does not answer"},
}
CHANGE_PROBLEMS = {
    400: {"model": Problem, "description": "The body is not JSON"},
    409: {"model": Problem, "description": "Another change came first"},
    **PROBLEMS,
}
CHANGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "oneOf": [{"$ref": f"#/components/schemas/{each.__name__}"} for each in ACTIONS],
                    "discriminator": {"propertyName": "action"},
                }
            }
        },
    }
}
LIMIT_QUERY = {
    "parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MOST_AUDIT}}]
}


def add_admin_routes(router: APIRouter, desk: AdminDesk, credential: Credential) -> None:
    """See docs/api.md."""

    @router.get(
        PREFIX + "state",
        responses={200: {"model": StateAnswer}, **PROBLEMS},
        response_model=None,
        tags=["administration"],
    )
    async def state(request: Request) -> Response:
        """The wanted and the agreed state, and what each process makes of them."""
        credential.check(request.headers)
        return _answer(await desk.state(request.state.request_id))

    @router.post(
        PREFIX + "changes",
        openapi_extra=CHANGE_BODY,
        responses={200: {"model": ChangeAnswer}, **CHANGE_PROBLEMS},
        response_model=None,
        tags=["administration"],
    )
    async def change(request: Request) -> Response:
        """Change what is served: another control, experiments, the shadow, or back to an earlier version."""
        credential.check(request.headers)
        return _answer(await desk.change(parse_change(await request.body()), request.state.request_id))

    @router.get(
        PREFIX + "audit",
        openapi_extra=LIMIT_QUERY,
        responses={200: {"model": AuditAnswer}, **PROBLEMS},
        response_model=None,
        tags=["administration"],
    )
    async def audit(request: Request) -> Response:
        """Who changed what, when and why; newest first."""
        credential.check(request.headers)
        given = request.query_params.get("limit", str(AUDITED))
        if not given.isascii() or not given.isdigit():
            raise InvalidRequestError(
                f"limit is {given[:100]!r}, from 1 to {MOST_AUDIT}", "limit", f"from 1 to {MOST_AUDIT}"
            )
        return _answer(await desk.audit(int(given), request.state.request_id))


def parse_change(body: bytes) -> AnyChange:
    """The change in `body`. MalformedBodyError, or InvalidRequestError with the wrong field and what is accepted."""
    try:
        return CHANGE.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise MalformedBodyError(f"the body is not JSON: {first['ctx']['error']}") from error
        names = ", ".join(str(each.model_fields["action"].default) for each in ACTIONS)
        if first["type"] in ("union_tag_not_found", "union_tag_invalid"):
            raise InvalidRequestError(f"action must be one of {names}", "action", f"one of: {names}") from error
        field = ".".join(str(part) for part in first["loc"][1:]) or None  # the first part is the action
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidRequestError(f"{field}: {message}" if field else message, field, message) from error


def _answer(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type=JSON)
