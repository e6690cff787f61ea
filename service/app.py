"""Wires whole objects, in one place. Nothing is made at import time."""

import asyncio
import gc
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.ad_flags import AdFlags
from service.admin import AdminDesk
from service.admin_routes import add_admin_routes
from service.api import Services, add_routes
from service.background import Background
from service.breaker import Breaker
from service.credentials import Credential
from service.errors import ServiceError
from service.events import EventLog
from service.features import EmbeddedStore, FeatureStore
from service.file_state import FileState
from service.flag_changes import FlagDesk
from service.flag_stores import EmbeddedFlags, FlagStore
from service.follower import Follower, Pace
from service.gated_preparer import GatedPreparer
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.log_lines import configure_logging
from service.metrics import Metrics
from service.middleware import BodyMiddleware, InFlightMiddleware, KeyMiddleware, RequestIdMiddleware
from service.openapi import document
from service.problem import http_problem, problem
from service.ranker import Ranker
from service.recent import Recent
from service.redis_flags import RedisFlags
from service.redis_state import RedisState
from service.redis_store import LogKeys, RedisStore
from service.registry import Registry
from service.request_lines import RequestLines
from service.runner import InThreads, InTurns
from service.served_log import ServedLog
from service.settings import Settings, read_settings
from service.shadow import ShadowDesk
from service.shelf import Shelf
from service.state_stores import StateStore
from service.traffic import Traffic
from service.user_cache import Limits, UserCache
from service.user_features import UserReader
from service.version import VERSION


def create_app(
    settings: Settings,
    loaded: LoadedBundle | None = None,
    store: FeatureStore | None = None,
    *,
    own_process: bool = False,
) -> FastAPI:
    """The application. It loads `settings.bundle` when it starts, unless it is given one that is `loaded` already.

    `store` replaces the feature store that the settings name. `own_process`: nothing else runs in this process, so what
    is there once it serves stays: cyclic garbage is no longer looked for in it.
    """
    registry = Registry()
    metrics = Metrics()
    store = store or make_store(settings, registry)
    runner = InThreads(settings.cascade_threads) if settings.cascade_threads else InTurns()
    breaker = Breaker(settings.breaker_failures, settings.breaker_seconds)
    cache = UserCache(make_limits(settings))
    users = UserReader(store, breaker, metrics, cache, settings.features_timeout_ms / 1e3, settings.max_record_bytes)
    flags = AdFlags(
        make_flag_store(settings, store), metrics, settings.flags_poll_seconds, settings.flags_stale_seconds
    )
    served = ServedLog(store if isinstance(store, RedisStore) and settings.log_entries else None, metrics, settings)
    shadow = ShadowDesk(runner, flags, metrics, settings, served)
    states = make_state_store(settings, store)
    traffic = Traffic()
    background, recent = Background(traffic), Recent(settings.recent_requests)
    follower = Follower(
        states,
        GatedPreparer(settings, recent, background),
        registry,
        Shelf(settings.keep_bundles),
        flags,
        background,
        metrics,
        Pace(settings.state_poll_seconds, settings.state_ttl_seconds),
    )
    given = [] if loaded is None else [loaded]  # let go of when it is taken: later bundles will replace it
    services = Services(
        registry=registry,
        ranker=Ranker(registry, users, flags, runner, settings, shadow),
        events=EventLog(registry, users, metrics, settings),
        flags=FlagDesk(registry, flags, settings),
        metrics=metrics,
        shadow=shadow,
        testing_key=settings.testing_key,
        recent=recent,
        follower=follower,
        served=served,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await flags.start()
        await follower.start(
            lambda: asyncio.to_thread(load_bundle, settings.bundle, settings), given.pop() if given else None
        )
        users.start()
        shadow.start()
        served.start()
        if own_process:  # a pass over 200,000 objects of modules takes 25 ms, in the middle of requests
            gc.collect()
            gc.freeze()
        yield
        await shadow.stop()
        await served.stop()
        await users.stop()
        await follower.stop()
        await flags.stop()
        runner.close()
        background.close()
        await states.close()
        await store.close()

    app = FastAPI(
        title="adrank",
        version=VERSION,
        description="Ranks ads from one bundle.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.services = services
    add_routes(app.router, services)
    add_admin_routes(app.router, AdminDesk(states), Credential.of("admin_key", settings.admin_key))
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    app.add_exception_handler(ServiceError, _expected)
    app.add_exception_handler(HTTPException, _http)
    app.add_middleware(BodyMiddleware, limit=settings.max_body_bytes, timeout_s=settings.body_timeout_ms / 1e3)
    app.add_middleware(InFlightMiddleware, limit=settings.max_in_flight, metrics=metrics, traffic=traffic)
    if settings.api_key is not None:
        callers = Credential.of("api_key", settings.api_key)
        app.add_middleware(KeyMiddleware, callers=callers, testers=Credential.of("testing_key", settings.testing_key))
    app.add_middleware(RequestIdMiddleware, metrics=metrics, lines=RequestLines(settings.log_requests_per_second))
    return app


def app_from_environment() -> FastAPI:
    """What each of several worker processes runs; the settings come from ADRANK_* variables."""
    settings = read_settings()
    configure_logging(settings)
    return create_app(settings, own_process=True)


def make_store(settings: Settings, registry: Registry) -> FeatureStore:
    """Redis when its address is set, otherwise the demo users of the bundle that is served first: they must not change
    while a request waits for one. SettingsError for a useless address."""
    if settings.redis_url is None:
        return EmbeddedStore(
            cache(lambda: registry.live.bundle.users),
            settings.history_limit,
            settings.embedded_users,
            settings.max_record_bytes,
        )
    return RedisStore(
        settings.redis_url,
        prefix=settings.redis_prefix,
        timeout_s=settings.redis_timeout_ms / 1e3,
        write_timeout_s=settings.events_timeout_ms / 1e3,
        pool_size=settings.redis_pool_size,
        history_limit=settings.history_limit,
        max_record_bytes=settings.max_record_bytes,
        ttl_s=settings.redis_ttl_s,
        log=LogKeys.of(settings.redis_prefix, settings.log_entries) if settings.log_entries else None,
    )


def make_flag_store(settings: Settings, store: FeatureStore) -> FlagStore:
    """Beside the users where they are in Redis, otherwise in this process's memory."""
    if isinstance(store, RedisStore):
        return RedisFlags(store, settings.redis_flags_prefix, settings.max_flagged_ads)
    return EmbeddedFlags(settings.max_flagged_ads)


def make_state_store(settings: Settings, store: FeatureStore) -> StateStore:
    """The folder that is set, else beside the users in Redis, else a folder that lasts as long as the process."""
    if settings.state_folder is not None:
        return FileState(settings.state_folder.absolute(), settings.state_ttl_seconds)
    if isinstance(store, RedisStore):
        return RedisState(store, settings.state_prefix, settings.state_ttl_seconds)
    folder = Path(tempfile.gettempdir()) / f"adrank-state-{secrets.token_hex(8)}"
    return FileState(folder, settings.state_ttl_seconds, temporary=True)


def make_limits(settings: Settings) -> Limits:
    """What is kept of users in memory. Beside the demo users, which are there already, only for a store that fails."""
    return Limits(
        users=settings.cache_users,
        bytes=settings.cache_bytes,
        told_s=0.0 if settings.redis_url is None else settings.cache_seconds,
        untold_s=0.0 if settings.redis_url is None else settings.cache_untold_seconds,
        stale_s=settings.stale_seconds,
    )


async def _expected(request: Request, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    return problem(error, request.state.request_id)


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    message = f"{request.method} {request.url.path}: {error.detail}"
    return http_problem(error.status_code, message, request.state.request_id, dict(error.headers or {}))
