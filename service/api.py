"""The routes: parse, delegate, answer."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.responses import Response
from starlette.routing import request_response

from bundle.ladder import FULL, Worth
from service.checks import event_kinds
from service.errors import NotReadyError
from service.events import EventLog
from service.flag_changes import FlagDesk
from service.follower import Follower
from service.forced_arms import forced_arms
from service.loaded import LoadedBundle
from service.metrics import CONTENT_TYPE, Metrics
from service.plan import ARM_HEADER
from service.problem import parse, parse_query
from service.ranker import Ranker
from service.recent import Recent
from service.registry import Registry
from service.schemas import (
    BUNDLES_RESPONSE,
    EVENTS_RESPONSE,
    FLAGS_CHANGED,
    FLAGS_RESPONSE,
    RANK_RESPONSE,
    SCORE_RESPONSE,
    BundleOut,
    BundlesResponse,
    EventsRequest,
    EventsResponse,
    FlagsChanged,
    FlagsQuery,
    FlagsRequest,
    FlagsResponse,
    Health,
    Problem,
    RankRequest,
    RankResponse,
    RungOut,
    ScoreRequest,
    ScoreResponse,
)
from service.served_log import ServedLog
from service.shadow import ShadowDesk
from service.standing import standing
from service.timing import RequestTiming

JSON = "application/json"
DRAINING = "draining"
"""In the state of each request's scope, once the process is about to end (service/stopping.py)."""
NO_KEY: dict[str, Any] = {"model": Problem, "description": "The setting api_key asks for a key: none, or a wrong one"}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is not JSON"},
    401: NO_KEY,
    408: {"model": Problem, "description": "The body did not arrive in time"},
    413: {"model": Problem, "description": "The body is too large"},
    422: {"model": Problem, "description": "A field is wrong; the body names it and what is accepted"},
    429: {"model": Problem, "description": "Too many requests in flight; see Retry-After"},
    500: {"model": Problem, "description": "An error nobody expected"},
    503: {"model": Problem, "description": "No bundle yet, or the store does not take events or flags"},
}


ARM_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": f"{NO_KEY['description']}; or X-Adrank-Arm without the key of testing_key"},
    403: {"model": Problem, "description": "X-Adrank-Arm while no testing_key is set"},
}


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes delegate to."""

    registry: Registry
    ranker: Ranker
    events: EventLog
    flags: FlagDesk
    metrics: Metrics
    served: ServedLog
    shadow: ShadowDesk
    testing_key: str | None
    """See service/forced_arms.py."""
    recent: Recent
    follower: Follower


ARM_PARAMETER = {
    "name": ARM_HEADER,
    "in": "header",
    "required": False,
    "description": "For testing, with the key of testing_key as bearer token: the arms the user is to be in.",
    "schema": {"type": "string", "pattern": r"^[a-z0-9_-]+=[a-z0-9_-]+(,[a-z0-9_-]+=[a-z0-9_-]+)*$"},
}


def body_of(name: str) -> dict[str, Any]:
    """The OpenAPI entry for a body that the route parses itself: one pass from bytes to model."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}}


def query_of(model: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI entry for a query that the route parses itself."""
    fields = model.model_json_schema()["properties"]
    return {"parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]}


Endpoint = Callable[[Request], Awaitable[Response]]


class BareRoute(APIRoute):
    """A route whose function takes the request and gives the answer: FastAPI documents it, and stands aside when it is
    called. Looking for dependencies there are none of would take 0.1 ms of a request."""

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = request_response(endpoint)


def add_routes(router: APIRouter, services: Services) -> None:
    """All routes, the hot ones first, in the application's own router: to find one in an included router takes FastAPI
    0.06 ms."""
    _ranking(router, services)
    _flags(router, services)
    _operations(router, services)


def _ranking(router: APIRouter, services: Services) -> None:
    def post(path: str, request: type, response: Any, **documented: Any) -> Callable[[Endpoint], Endpoint]:
        def add(endpoint: Endpoint) -> Endpoint:
            router.add_api_route(
                path,
                endpoint,
                methods=["POST"],
                openapi_extra=body_of(request.__name__) | documented,
                responses={200: {"model": response}, **PROBLEMS, **(ARM_PROBLEMS if documented else {})},
                response_class=Response,
                response_model=None,
                tags=["ranking"],
                route_class_override=BareRoute,
            )
            return endpoint

        return add

    @post("/v1/rank", RankRequest, RankResponse, parameters=[ARM_PARAMETER])
    async def rank(request: Request) -> Response:
        """The best ads for a user in a context, through the whole funnel."""
        timing = _timing(request)
        forced = forced_arms(request, services.testing_key)
        body = await request.body()
        asked = parse(RankRequest, body)
        try:
            answer = await services.ranker.rank(asked, request.state.request_id, timing, forced)
        except Exception as error:
            services.served.failed(request.state.request_id, str(asked.user_id), body, timing, error)
            raise
        if timing.inputs is not None:
            services.recent.add(body, timing.inputs.stored)
        answered = RANK_RESPONSE.dump_json(answer)
        services.served.add(request.state.request_id, str(asked.user_id), body, answered, timing)
        return _timed(answered, timing, services.metrics)

    @post("/v1/score", ScoreRequest, ScoreResponse, parameters=[ARM_PARAMETER])
    async def score(request: Request) -> Response:
        """The click probability of each given ad."""
        timing = _timing(request)
        forced = forced_arms(request, services.testing_key)
        asked = parse(ScoreRequest, await request.body())
        answer = await services.ranker.score(asked, request.state.request_id, timing, forced)
        return _timed(SCORE_RESPONSE.dump_json(answer), timing, services.metrics)

    @post("/v1/events", EventsRequest, EventsResponse)
    async def events(request: Request) -> Response:
        """Append what users did to their histories; the next request sees it."""
        asked = parse(EventsRequest, await request.body())
        answer = await services.events.append(asked, request.state.request_id)
        return Response(EVENTS_RESPONSE.dump_json(answer), media_type=JSON)


def _flags(router: APIRouter, services: Services) -> None:
    path = "/v1/ads/flags"

    @router.put(
        path,
        openapi_extra=body_of(FlagsRequest.__name__),
        responses={200: {"model": FlagsChanged}, **PROBLEMS},
        response_model=None,
        tags=["operations"],
    )
    async def change(request: Request) -> Response:
        """Pause ads, mark their budget as used up, or take that back; every worker process honours it soon."""
        asked = parse(FlagsRequest, await request.body())
        answer = await services.flags.change(asked, request.state.request_id)
        return Response(FLAGS_CHANGED.dump_json(answer), media_type=JSON)

    @router.get(
        path,
        openapi_extra=query_of(FlagsQuery),
        responses={200: {"model": FlagsResponse}, **{status: PROBLEMS[status] for status in (401, 422, 503)}},
        response_model=None,
        tags=["operations"],
    )
    async def look(request: Request) -> Response:
        """Flags of ads, as this worker process knows them."""
        asked = parse_query(FlagsQuery, request.query_params.multi_items(), lists=("ad_id",))
        answer = await services.flags.look(asked, request.state.request_id)
        return Response(FLAGS_RESPONSE.dump_json(answer), media_type=JSON)


def _operations(router: APIRouter, services: Services) -> None:
    not_ready: dict[int | str, dict[str, Any]] = {
        503: {"model": Problem, "description": "No bundle is loaded yet, or the process is about to end"}
    }

    @router.get(
        "/v1/bundles",
        responses={200: {"model": BundlesResponse}, 401: NO_KEY, **not_ready},
        response_model=None,
        tags=["operations"],
    )
    async def bundles() -> Response:
        """The bundles that are loaded, the control's first, and what every process wants, has agreed on and serves."""
        return Response(BUNDLES_RESPONSE.dump_json(await describe_bundles(services)), media_type=JSON)

    @router.get("/healthz", response_model=Health, tags=["operations"])
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @router.get("/readyz", response_model=Health, responses=not_ready, tags=["operations"])
    async def readyz(request: Request) -> dict[str, str]:
        """A bundle is loaded and proved, and the process is not about to end; requests are answered."""
        if request.scope["state"].get(DRAINING):
            raise NotReadyError("the process is about to end: it takes requests, but not for long")
        return {"status": "ready", "bundle_id": services.registry.live.id}

    @router.get(
        "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}}, tags=["operations"]
    )
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(services.metrics.render(), media_type=CONTENT_TYPE)


def _timing(request: Request) -> RequestTiming:
    """A new record of times; the middleware, which counts the answer by arm, finds it in the request's state."""
    timing = request.scope["state"]["timing"] = RequestTiming()
    return timing


def _timed(body: bytes, timing: RequestTiming, metrics: Metrics) -> Response:
    """The answer; its record of times goes into the header and the metrics; the middleware puts it into the log."""
    metrics.ranked(timing)
    return Response(body, headers={"Server-Timing": timing.server_timing()}, media_type=JSON)


async def describe_bundles(services: Services) -> BundlesResponse:
    """What /v1/bundles says. NotReadyError before anything is served. The control's bundle is as the control is served,
    the others are as they were loaded."""
    follower, plan = services.follower, services.registry.plan
    loaded = {**follower.held, **plan.bundles}
    others = [each for name, each in sorted(loaded.items()) if name != plan.control.id]
    return {
        "bundles": [describe(each, plan.users_of(each.id)) for each in (plan.control, *others)],
        "shadow": None if plan.shadow is None else services.shadow.out(plan.shadow),
        "state": await standing(follower),
    }


def describe(live: LoadedBundle, serves: list[str]) -> BundleOut:
    """What /v1/bundles says of a bundle."""
    manifest = live.bundle.manifest
    features = manifest.features
    return {
        "bundle_id": live.id,
        "serves": serves,
        "made": manifest.made.model_dump(),
        "stages": manifest.stages.model_dump(mode="json"),
        "sizes": {
            "retrieval": live.sizes.retrieval,
            "qscore": live.sizes.qscore,
            "prerank": live.sizes.prerank,
            "answer": live.sizes.answer,
        },
        "ads": manifest.catalogue.ads,
        "quality": manifest.quality,
        "context_fields": [field.name for field in features.context.fields],
        "profile_fields": [field.name for field in features.user.fields],
        "histories": {
            h.name: {"of_ads": h.of_ads, "fields": h.fields, "events": h.events, "max_length": h.max_length}
            for h in features.histories
        },
        "filters": sorted(live.bundle.filters),
        "targeting": sorted(live.bundle.targeting),
        "event_kinds": event_kinds(live.bundle),
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "golden": {
            "requests": live.proof.requests,
            "query_deviation": live.proof.query_deviation,
            "logit_deviation": live.proof.logit_deviation,
        },
        "ladder": describe_ladder(live),
        "ladder_step": live.ladder.gate.step,
    }


def describe_ladder(live: LoadedBundle) -> list[RungOut]:
    """Every fine-ranker of the bundle, whether it may run and what it is worth."""
    stage, loaded = live.bundle.manifest.stages.finerank, {rung.name: rung for rung in live.ladder.rungs}

    def one(name: str, model: str, worth: Worth | None) -> RungOut:
        expected = live.estimates.of(loaded[name].key, live.sizes.prerank) if name in loaded else None
        return {
            "name": name,
            "model": model,
            "loaded": name in loaded,
            "expected_ms": None if expected is None else round(expected, 3),
            "worth": None if worth is None else worth.model_dump(),
        }

    return [one(FULL, stage.model, stage.worth), *(one(rung.name, rung.model, rung.worth) for rung in stage.ladder)]
