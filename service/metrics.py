"""The one door to prometheus_client. Latencies are histograms only, so that they can be added over replicas."""

import os
from collections.abc import Mapping
from functools import cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from service.timing import RequestTiming

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHARED_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Set by serve.py for several workers: each writes its values there, and any of them can answer for all."""

BUCKETS = tuple(
    each / 1e3
    for each in (0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 1000)
)
"""Seconds. Close together where answers are expected (0.5 to 20 ms), so that a p99 read from them is within 50 %."""


class Metrics:
    """All metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        r = self._registry
        self._requests = Counter("adrank_requests", "Requests answered.", ["route", "status"], registry=r)
        self._total = Histogram(
            "adrank_request_seconds", "From the first byte read to the answer.", ["route"], buckets=BUCKETS, registry=r
        )
        self._stage = Histogram(
            "adrank_stage_seconds", "Time of one stage or wait.", ["stage"], buckets=BUCKETS, registry=r
        )
        self._degraded = Counter("adrank_degraded", "Answers degraded, by what and why.", ["what", "why"], registry=r)
        self._non_finite = Counter("adrank_non_finite_scores", "Scores NaN or infinite.", ["stage"], registry=r)
        self._features = Counter("adrank_user_feature_reads", "Reads of the feature store.", ["outcome"], registry=r)
        self._cache = Counter("adrank_user_cache_reads", "Users looked up in memory.", ["outcome"], registry=r)
        self._changed = Counter("adrank_user_cache_invalidations", "Users in memory that changed.", registry=r)
        self._told = Gauge(
            "adrank_user_cache_told", "1 while Redis tells of changes.", registry=r, multiprocess_mode="livemin"
        )
        self._rungs = Counter("adrank_rung", "Requests by the rung that scored them.", ["rung"], registry=r)
        self._step = Gauge(
            "adrank_ladder_step", "First rung that the load allows.", registry=r, multiprocess_mode="livemax"
        )
        self._users = Counter("adrank_users", "Requests by what was known of the user.", ["user"], registry=r)
        self._events = Counter("adrank_events", "Events received.", ["outcome"], registry=r)
        self._anew = Counter("adrank_records_started_anew", "Unreadable records replaced by events.", registry=r)
        self._flagged = Gauge(
            "adrank_flagged_ads", "Ads with a flag.", ["flag"], registry=r, multiprocess_mode="livemax"
        )
        self._flags_age = Gauge(
            "adrank_ad_flags_age_seconds", "Since flags were read.", registry=r, multiprocess_mode="livemax"
        )
        self._refused = Counter("adrank_overload_refusals", "Requests refused at once.", registry=r)
        self._in_flight = Gauge(
            "adrank_in_flight_requests", "Requests in flight.", registry=r, multiprocess_mode="livesum"
        )

        # What every request writes to is looked up once: 8 times `labels` takes 30 us.
        self._requests_of, self._total_of = cache(self._requests.labels), cache(self._total.labels)
        self._stage_of, self._users_of = cache(self._stage.labels), cache(self._users.labels)
        self._rungs_of = cache(self._rungs.labels)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests_of(route, str(status)).inc()
        self._total_of(route).observe(seconds)

    def ranked(self, timing: RequestTiming) -> None:
        """Take over the record of one rank or score request."""
        for name, ms in timing.waits.items():
            self._stage_of(name).observe(ms / 1e3)
        for stage in timing.stages:
            if stage.degraded is None:
                self._stage_of(stage.key or stage.name).observe(stage.ms / 1e3)
        for reason in timing.degraded:
            what, _, why = reason.partition(": ")
            self._degraded.labels(what, why).inc()
        for name, count in timing.non_finite.items():
            self._non_finite.labels(name).inc(count)
        self._users_of(timing.user).inc()
        self._rungs_of(timing.rung or "none").inc()
        self._step.set(timing.ladder_step)

    def features(self, outcome: str) -> None:
        """The feature store was read, or skipped."""
        self._features.labels(outcome).inc()

    def cache_read(self, outcome: str) -> None:
        """A user was looked up in memory: hit, miss, or joined, a miss that waits for another's read."""
        self._cache.labels(outcome).inc()

    def cache_changed(self, users: int) -> None:
        """So many users in memory are fresh no more, because they changed."""
        self._changed.inc(users)

    def cache_told(self, told: bool) -> None:
        """Whether the store tells of changes now."""
        self._told.set(int(told))

    def events(self, accepted: int, ignored: int) -> None:
        """Events came in."""
        self._events.labels("accepted").inc(accepted)
        self._events.labels("ignored").inc(ignored)

    def started_anew(self, count: int) -> None:
        """So many unreadable records were replaced by new ones when events came."""
        self._anew.inc(count)

    def flagged(self, counts: Mapping[str, int]) -> None:
        """So many ads of the catalogue have each flag."""
        for flag, count in counts.items():
            self._flagged.labels(flag).set(count)

    def flags_age(self, seconds: float) -> None:
        """The flags of ads were read from the store so long ago."""
        self._flags_age.set(seconds)

    def refused(self) -> None:
        """A request was refused because too many were in flight."""
        self._refused.inc()

    def in_flight(self, count: int) -> None:
        """So many requests are in flight now."""
        self._in_flight.set(count)

    def render(self) -> bytes:
        """The text that Prometheus reads; of all workers where there are several."""
        if SHARED_DIR not in os.environ:
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)
