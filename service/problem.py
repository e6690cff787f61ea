"""The service's errors as HTTP: the one table to status and code, and the body they all share."""

import json
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.responses import Response

from service.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    MalformedBodyError,
    NotReadyError,
    OverloadedError,
    ServiceError,
    StoreError,
    UnauthorizedError,
)
from service.schemas import AdFlagsIn, EventIn, Filter, Given

TABLE: dict[type[ServiceError], tuple[int, str]] = {
    MalformedBodyError: (400, "malformed_json"),
    UnauthorizedError: (401, "unauthorized"),
    ForbiddenError: (403, "forbidden"),
    BodyTimeoutError: (408, "body_timeout"),
    ConflictError: (409, "conflict"),
    BodyTooLargeError: (413, "body_too_large"),
    InvalidRequestError: (422, "invalid_request"),
    OverloadedError: (429, "overloaded"),
    NotReadyError: (503, "not_ready"),
    StoreError: (503, "store_unavailable"),
}
HTTP_CODES = {404: "unknown_route", 405: "wrong_method"}

BOUNDS = {
    "ge": "at least {}",
    "gt": "above {}",
    "le": "at most {}",
    "lt": "below {}",
    "min_length": "length at least {}",
    "max_length": "length at most {}",
}
UNION_BRANCHES = ("constrained-", "list[", "function-", "nullable")
MOST_ERRORS = 500
"""Wrong places in a body that are looked at. Lists stop at their first, but an object names each unknown key."""
UNION_TYPES = {"int", "float", "str", "bool", "none"}
NESTED: dict[str, type[BaseModel]] = {"user": Given, "filters": Filter, "events": EventIn, "flags": AdFlagsIn}

Model = TypeVar("Model", bound=BaseModel)


def parse(model: type[Model], body: bytes) -> Model:
    """The request in `body`. MalformedBodyError, or InvalidRequestError with the wrong field and what is accepted."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise translate(model, error) from error


def parse_query(model: type[Model], given: Iterable[tuple[str, str]], lists: Collection[str] = ()) -> Model:
    """The query of an address; `lists` may be given several times. InvalidRequestError as for a body."""
    values: dict[str, list[str]] = {}
    for name, value in given:
        values.setdefault(name, []).append(value)
    try:
        return model.model_validate(
            {name: found[0] if len(found) == 1 and name not in lists else found for name, found in values.items()}
        )
    except ValidationError as error:
        raise translate(model, error) from error


def translate(model: type[BaseModel], error: ValidationError) -> InvalidRequestError:
    """pydantic's list of errors as one: the first wrong field, with all that was expected of it."""
    if (count := error.error_count()) > MOST_ERRORS:
        return InvalidRequestError(
            f"the body is wrong in {count} places; with at most {MOST_ERRORS} the first one is named",
            None,
            f"at most {MOST_ERRORS} wrong places",
        )
    errors = error.errors(include_url=False, include_input=False)
    first = errors[0]
    if first["type"] == "json_invalid":
        return MalformedBodyError(f"the body is not JSON: {first['ctx']['error']}")
    if not first["loc"]:
        return InvalidRequestError("the body must be a JSON object", None, "object")
    # of a value that could be one thing or a list of things, the error inside the list says more
    field = max((f for f in map(field_of, (e["loc"] for e in errors)) if _within(f, field_of(first["loc"]))), key=len)
    same = [each for each in errors if field_of(each["loc"]) == field]
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(_siblings(model, first["loc"]))
        return InvalidRequestError(f"{field} is not known here; known: {allowed}", field, f"one of: {allowed}")
    message = "; or ".join(dict.fromkeys(each["msg"] for each in same))
    return InvalidRequestError(f"{field}: {message}", field, "; or ".join(dict.fromkeys(_bounds(same))))


def field_of(loc: tuple[int | str, ...]) -> str:
    """A dotted path, without the names of union branches that pydantic mixes in."""
    parts = [str(part) for part in loc if not (isinstance(part, str) and part.startswith(UNION_BRANCHES))]
    while len(parts) > 1 and parts[-1] in UNION_TYPES:
        parts.pop()
    return ".".join(part[:100] for part in parts)


def _within(field: str, outer: str) -> bool:
    return field == outer or field.startswith(outer + ".")


def _bounds(errors: Iterable[Any]) -> Iterable[str]:
    for each in errors:
        given = each.get("ctx", {})
        named = [text.format(given[key]) for key, text in BOUNDS.items() if key in given]
        yield " and ".join(named) if named else each["type"].removesuffix("_type").replace("_", " ")


def _siblings(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    nested = NESTED.get(str(loc[0])) if len(loc) > 1 else None
    return list((nested or model).model_fields)


def status_of(error: ServiceError) -> tuple[int, str]:
    """The HTTP status and the code of an error that was expected."""
    return next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)


def problem(error: ServiceError, request_id: str) -> Response:
    """The answer to an error that was expected."""
    status, code = status_of(error)
    field = error.field if isinstance(error, InvalidRequestError) else None
    bound = error.bound if isinstance(error, InvalidRequestError) else None
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"], bound = str(error.retry_after_s), f"at most {error.limit} in flight"
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    return answer(status, code, str(error), request_id, field, bound, headers)


def http_problem(status: int, message: str, request_id: str, headers: dict[str, str] | None = None) -> Response:
    """The answer to an unknown route or a wrong method."""
    return answer(status, HTTP_CODES.get(status, "http_error"), message, request_id, headers=headers)


def unexpected(request_id: str) -> Response:
    """The answer to an error nobody expected: nothing of it goes out, the log has it under the request id."""
    return answer(500, "internal", "an internal error; the log has it under this request id", request_id)


def answer(
    status: int,
    code: str,
    message: str,
    request_id: str,
    field: str | None = None,
    bound: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The body that every problem has."""
    body = {"error": {"code": code, "message": message, "field": field, "bound": bound, "request_id": request_id}}
    return Response(json.dumps(body), status, headers, "application/json")
