"""Every setting of the service: one frozen object, read once at start from ADRANK_* variables and the command line."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.credentials import is_loopback, parse_keys
from service.errors import SettingsError
from service.gate_settings import GateSettings
from service.operating_settings import OperatingSettings

PREFIX = "ADRANK_"
KEYS = ("api_key", "admin_key", "testing_key")
DRAIN_S = 5.0
"""Where others than this machine reach the service: balancers ask every few seconds who is ready."""


class _Serving(BaseSettings):
    """Frozen; the variable of a field is its name in capitals after ADRANK_. Unknown ADRANK_* variables are refused."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    bundle: Path = Field(description="Folder of the bundle to serve.")
    host: str = Field("127.0.0.1", description="Address to listen on. 0.0.0.0 inside a container.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    workers: int = Field(
        1, ge=1, le=64, description="Worker processes. Bundle arrays are memory-mapped, so all of them share one copy."
    )

    provider: Literal["cpu", "cuda", "tensorrt"] = Field(
        "cpu",
        description="Where graphs run. A provider that is not there stops the start: there is no silent fallback.",
    )
    threads: int = Field(
        1,
        ge=1,
        le=64,
        description="Threads inside one graph run. More than 1 only pays when requests leave cores idle.",
    )
    cascade_threads: int = Field(
        0,
        ge=0,
        le=64,
        description="Worker threads that rank. 0: the event loop ranks, one request after the other, which is fastest "
        "with one worker process a core. More for a GPU, or for one process that has several cores to itself.",
    )

    default_deadline_ms: int = Field(
        200, ge=1, le=60_000, description="Budget of a request that names none; a stage that would miss it is left out."
    )
    max_deadline_ms: int = Field(
        10_000,
        ge=1,
        le=60_000,
        description="Longest budget a request may ask for, so that no caller holds a place for long.",
    )
    features_timeout_ms: float = Field(
        50, gt=0, description="Longest wait for a user's features; afterwards the request is served with defaults."
    )
    redis_timeout_ms: float = Field(
        30,
        gt=0,
        description="Longest wait for one Redis answer, connection or free connection. Below features_timeout_ms.",
    )
    events_timeout_ms: float = Field(
        1000,
        gt=0,
        description="The same for a batch of events, which has more to do than a read. Not below redis_timeout_ms.",
    )
    redis_url: str | None = Field(
        None,
        description="redis://host:port/db of the feature store. Without it the bundle's own demo users are served.",
    )
    redis_prefix: str = Field("adrank:user:", description="What the keys of users start with, to share a Redis safely.")
    redis_pool_size: int = Field(
        32,
        ge=1,
        le=10_000,
        description="Connections one process opens at most to read, and as many to write: Redis has a limit over all.",
    )
    redis_ttl_s: int = Field(
        0, ge=0, description="Users that do nothing for so long are forgotten; 0 keeps them forever."
    )
    breaker_failures: int = Field(
        5, ge=1, description="After so many failed reads in a row the store is left alone for a while."
    )
    breaker_seconds: float = Field(1.0, gt=0, description="How long it is left alone; then one read tries again.")
    cache_users: int = Field(
        10_000, ge=0, le=10_000_000, description="Users whose last record each process keeps in memory. 0: none."
    )
    cache_bytes: int = Field(
        67_108_864,
        ge=0,
        le=1 << 40,
        description="Memory for them in each process: about 1 kB and twice the record a user. 0: none.",
    )
    cache_seconds: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="A kept record serves for so long while Redis tells of changes. 0: Redis is not asked to.",
    )
    cache_untold_seconds: float = Field(
        1.0,
        ge=0,
        le=60,
        description="The same while it does not tell: how late events that other processes took are seen. 0: never.",
    )
    stale_seconds: float = Field(
        300.0,
        gt=0,
        description="When the store fails, a kept record serves for so long, and the answer says so.",
    )
    history_limit: int = Field(
        1000,
        ge=1,
        le=10_000,
        description="Events kept of one kind and user. At least the longest history of the bundle.",
    )
    max_record_bytes: int = Field(
        262_144,
        ge=1024,
        description="Larger records are not read, the user counts as unknown; appending drops the oldest events.",
    )
    embedded_users: int = Field(
        100_000,
        ge=1,
        description="Without Redis: users whose events are kept in memory; the least recent are forgotten.",
    )

    log_entries: int = Field(
        0,
        ge=0,
        le=100_000_000,
        description="Rank answers and events are logged in two Redis Streams for `adrank outcomes`, which keep about "
        "so many entries each. 0: nothing is logged.",
    )
    log_queue_bytes: int = Field(
        16_777_216,
        ge=65_536,
        description="Answers that wait in one process to be logged; when Redis is slow, more are dropped and counted.",
    )

    max_in_flight: int = Field(
        64, ge=1, description="Requests accepted at the same time by one process; more get 429 before they are read."
    )
    max_body_bytes: int = Field(
        393_216, ge=1024, description="Larger bodies are refused unread. 2,000 ids of 128 characters take 0.3 MB."
    )
    body_timeout_ms: int = Field(
        5000,
        ge=1,
        description="Longest wait for a whole body: callers that send none must not keep a place.",
    )
    max_candidates: int = Field(
        2000,
        ge=1,
        le=100_000,
        description="Ads in one score request or own candidate list; bounds the time of a request.",
    )
    max_events: int = Field(1000, ge=1, le=100_000, description="Events in one request.")
    max_flags: int = Field(1000, ge=1, le=100_000, description="Ads whose flags one request may change or ask for.")
    max_flagged_ads: int = Field(
        1_000_000,
        ge=1,
        le=10_000_000,
        description="Ads that may have flags at the same time. Each takes about 150 bytes in every worker process.",
    )
    flags_poll_seconds: float = Field(
        1.0,
        ge=0.05,
        le=60,
        description="How often each worker asks Redis which flags of ads changed: how late it may show a paused ad.",
    )
    flags_stale_seconds: float = Field(
        10.0,
        gt=0,
        description="When flags were last read longer ago, answers say so. Above flags_poll_seconds.",
    )
    max_k: int = Field(200, ge=1, le=10_000, description="Most ads a request may ask for.")
    default_k: int = Field(10, ge=1, description="Ads returned when a request does not say how many.")

    retrieval_keep: int | None = Field(
        None, ge=1, description="Ads that leave retrieval, instead of the bundle's own number."
    )
    qscore_keep: int | None = Field(None, ge=1, description="Ads that leave the Qscore stage, instead of the bundle's.")
    prerank_keep: int | None = Field(
        None, ge=1, description="Ads that leave pre-ranking and are fine-ranked, instead of the bundle's number."
    )

    ladder: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_-]{0,31}$")] = Field(
        "auto",
        description="Fine-rankers of a bundle that has several: auto takes the best that load and deadline allow, off "
        "the full one alone, a rung's name that one alone.",
    )

    state_folder: Path | None = Field(
        None,
        description="Folder of the desired state: which bundles serve whom, for all processes that name it. Without it "
        "the state is in Redis; without redis_url too, it lasts as long as the process.",
    )
    redis_state_prefix: str | None = Field(
        None,
        min_length=1,
        description="What the keys of the desired state start with in Redis; otherwise state: and redis_prefix. "
        "Services that share users and serve other bundles need one each.",
    )
    state_poll_seconds: float = Field(
        0.2, ge=0.05, le=1, description="How often each process looks whether another state is wanted or agreed on."
    )
    state_ttl_seconds: float = Field(
        5.0,
        ge=1,
        le=60,
        description="A process that says nothing for so long is dead: a change of the state does not wait for it. At "
        "least 4 times state_poll_seconds.",
    )
    keep_bundles: int = Field(
        1, ge=0, le=16, description="Bundles that stay loaded after others took their place, to go back to at once."
    )

    @model_validator(mode="after")
    def _inner_below_outer(self) -> Self:
        if not self.redis_timeout_ms < self.features_timeout_ms:
            raise ValueError(
                f"redis_timeout_ms is {self.redis_timeout_ms:g}, it must be below features_timeout_ms, "
                f"{self.features_timeout_ms:g}"
            )
        if self.events_timeout_ms < self.redis_timeout_ms:
            raise ValueError(
                f"events_timeout_ms is {self.events_timeout_ms:g}, it must not be below redis_timeout_ms, "
                f"{self.redis_timeout_ms:g}"
            )
        if not self.features_timeout_ms < self.default_deadline_ms:
            raise ValueError(
                f"features_timeout_ms is {self.features_timeout_ms:g}, it must be below default_deadline_ms, "
                f"{self.default_deadline_ms}"
            )
        if not self.flags_poll_seconds < self.flags_stale_seconds:
            raise ValueError(
                f"flags_poll_seconds is {self.flags_poll_seconds:g}, it must be below flags_stale_seconds, "
                f"{self.flags_stale_seconds:g}"
            )
        if self.redis_flags_prefix.startswith(self.redis_prefix):
            raise ValueError(
                f"redis_prefix is {self.redis_prefix!r}, with which the keys of flags, {self.redis_flags_prefix!r}, "
                "begin too: they would be taken for users"
            )
        if self.state_prefix.startswith(self.redis_prefix):
            raise ValueError(
                f"redis_prefix is {self.redis_prefix!r}, with which the keys of the state, "
                f"{self.state_prefix!r}, begin too: they would be taken for users"
            )
        if self.state_ttl_seconds < 4 * self.state_poll_seconds:
            raise ValueError(
                f"state_ttl_seconds is {self.state_ttl_seconds:g}, it must be at least 4 times state_poll_seconds, "
                f"{self.state_poll_seconds:g}"
            )
        if self.log_entries and self.redis_url is None:
            raise ValueError(f"log_entries is {self.log_entries}, a log needs redis_url")
        if self.log_prefix.startswith(self.redis_prefix):
            raise ValueError(
                f"redis_prefix is {self.redis_prefix!r}, with which the keys of the log, {self.log_prefix!r}, begin "
                "too: they would be taken for users"
            )
        if self.workers > 1 and self.redis_url is None:
            raise ValueError(
                f"workers is {self.workers}, more than 1 need redis_url: events kept by one are lost on others"
            )
        if self.default_deadline_ms > self.max_deadline_ms:
            raise ValueError(
                f"default_deadline_ms is {self.default_deadline_ms}, at most max_deadline_ms, {self.max_deadline_ms}"
            )
        if self.default_k > self.max_k:
            raise ValueError(f"default_k is {self.default_k}, at most max_k, {self.max_k}")
        return self

    @property
    def redis_flags_prefix(self) -> str:
        """What the keys of ads' flags start with: services that do not share users do not share flags."""
        return f"flags:{self.redis_prefix}"

    @property
    def state_prefix(self) -> str:
        """What the keys of the desired state start with: services that do not share users do not share it."""
        return self.redis_state_prefix or f"state:{self.redis_prefix}"

    @property
    def log_prefix(self) -> str:
        """What the keys of the log start with."""
        return f"log:{self.redis_prefix}"


class Settings(GateSettings, OperatingSettings, _Serving):
    """All of them."""

    @model_validator(mode="after")
    def _keys_are_there_and_differ(self) -> Self:
        if not is_loopback(self.host):
            for name in ("api_key", "admin_key"):
                if getattr(self, name) is None:
                    raise ValueError(
                        f"host is {self.host!r}, which is no loopback address: others can reach the service, so it "
                        f"needs {name} (the variable {PREFIX}{name.upper()})"
                    )
        owners: dict[str, str] = {}
        for name in KEYS:
            for key in parse_keys(value) if (value := getattr(self, name)) else ():
                if owners.setdefault(key, name) != name:
                    raise ValueError(f"{owners[key]} and {name} have a key in common: each opens other things")
        return self

    @property
    def draining_s(self) -> float:
        """`drain_seconds`, or what is taken without it."""
        if self.drain_seconds is not None:
            return self.drain_seconds
        return 0.0 if is_loopback(self.host) else DRAIN_S


def read_settings(**given: Any) -> Settings:
    """The settings: `given` before ADRANK_* variables before defaults. SettingsError names every wrong one."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    if strange := sorted(name for name in os.environ if name.startswith(PREFIX) and name.upper() not in known):
        raise SettingsError(
            f"unknown settings in the environment: {', '.join(strange)}; known: {', '.join(sorted(known))}"
        )
    try:
        return Settings(**given)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(wrong)) from error


def to_environment(settings: Settings) -> dict[str, str]:
    """The variables from which a worker process reads the same settings again."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return {PREFIX + name.upper(): str(value) for name, value in values.items()}
