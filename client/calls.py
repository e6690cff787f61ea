"""What is sent for a call, and what comes back of it. Nothing here touches a network: both clients share it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from client.errors import (
    BY_STATUS,
    ArgumentError,
    ClientError,
    DeadlineError,
    ProblemError,
    UnreachableError,
    UnreadableAnswerError,
)
from client.schemas import (
    Answer,
    Asked,
    BundlesResponse,
    EventsRequest,
    EventsResponse,
    Problem,
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
)

A = TypeVar("A", bound=Answer)
R = TypeVar("R", bound=Asked)
RANK, SCORE, EVENTS, BUNDLES = "/v1/rank", "/v1/score", "/v1/events", "/v1/bundles"
LONGEST_DEADLINE_MS = 10_000
"""That the service takes, unless its max_deadline_ms is another. A call may last longer: it may have retries."""


@dataclass(frozen=True, slots=True)
class Call(Generic[A]):
    """One thing that is asked of the service, however often it is sent."""

    method: str
    path: str
    answer: type[A]
    request: Asked | None = None
    repeatable: bool = True
    """Whether it may be sent again although the service may have done it already."""

    def content(self, left_ms: float | None) -> bytes | None:
        """The body. `left_ms`: what the service may take; None: as long as it is set to."""
        if self.request is None:
            return None
        request = self.request
        if left_ms is not None and "deadline_ms" in type(request).model_fields:
            whole = min(max(int(left_ms), 1), LONGEST_DEADLINE_MS)
            request = request.model_copy(update={"deadline_ms": whole})
        return request.model_dump_json(exclude_unset=True).encode()


def rank_call(**fields: Any) -> Call[RankResponse]:
    """Fields as of RankRequest; None: left out. ArgumentError."""
    return Call("POST", RANK, RankResponse, made(RankRequest, fields))


def score_call(**fields: Any) -> Call[ScoreResponse]:
    """Fields as of ScoreRequest; None: left out. ArgumentError."""
    return Call("POST", SCORE, ScoreResponse, made(ScoreRequest, fields))


def events_call(**fields: Any) -> Call[EventsResponse]:
    """Fields as of EventsRequest. ArgumentError. Events that are sent twice are stored twice."""
    return Call("POST", EVENTS, EventsResponse, made(EventsRequest, fields), repeatable=False)


BUNDLES_CALL = Call("GET", BUNDLES, BundlesResponse)


def made(model: type[R], fields: Mapping[str, Any]) -> R:
    """The request with those fields that are not None. ArgumentError names the first that is wrong."""
    try:
        return model.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ArgumentError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


@dataclass(frozen=True, slots=True)
class Received:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    """By name in any case."""
    content: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer."""

    why: str
    late: bool
    """The deadline passed."""
    maybe_taken: bool
    """The request may have arrived."""


@dataclass(frozen=True, slots=True)
class Place:
    """What an error says of its call."""

    what: str
    """Method and address."""
    request_id: str
    attempts: int


def error_of(found: Received | Lost, place: Place) -> ClientError:
    """What went wrong, where `found` is no success."""
    if isinstance(found, Lost):
        kind = DeadlineError if found.late else UnreachableError
        said = f"{place.what}: {found.why} (request {place.request_id}, attempt {place.attempts})"
        return kind(said, request_id=place.request_id, attempts=place.attempts, maybe_taken=found.maybe_taken)
    code, message, field, bound = _problem(found.content)
    request_id = found.headers.get("x-request-id", place.request_id)
    return BY_STATUS.get(found.status, ProblemError)(
        f"{place.what}: {found.status} {code or 'without a code'}: {message} (request {request_id})",
        status=found.status,
        code=code,
        field=field,
        bound=bound,
        retry_after_s=_seconds(found.headers.get("retry-after")),
        request_id=request_id,
        attempts=place.attempts,
        maybe_taken=found.status >= 500 and code != "not_ready",
    )


def read(answer: type[A], found: Received, place: Place) -> A:
    """The answer of a success. UnreadableAnswerError names what is wrong with it."""
    try:
        return answer.model_validate_json(found.content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise UnreadableAnswerError(
            f"{place.what}: status {found.status}, but {where} is none of this API: {first['msg']} "
            f"(request {place.request_id})",
            request_id=place.request_id,
            attempts=place.attempts,
            maybe_taken=True,
        ) from error


def _problem(content: bytes) -> tuple[str, str, str | None, str | None]:
    """Code, message, field and bound; of a body that is no problem of the service, its beginning."""
    try:
        said = Problem.model_validate_json(content).error
    except ValidationError:
        return "", json.dumps(content[:200].decode(errors="replace")), None, None
    return said.code, said.message, said.field, said.bound


def _seconds(retry_after: str | None) -> float | None:
    """Infinite for what is no number of seconds: then it is never too early, because it is not tried again."""
    if retry_after is None:
        return None
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else float("inf")
