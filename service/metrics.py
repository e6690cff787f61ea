"""The one door to prometheus_client. Latencies are histograms only, so that they can be added over replicas."""

import os
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from service.timing import RequestTiming

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHARED_DIR = "PROMETHEUS_MULTIPROC_DIR"
"""Set by serve.py for several workers: each writes its values there, and any of them can answer for all."""

BUCKETS = tuple(
    each / 1e3
    for each in (0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 1000)
)
"""Seconds. Close together where answers are expected (0.5 to 20 ms), so that a p99 read from them is within 50 %."""
PREPARE_BUCKETS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)


NONE: Mapping[str, str] = {}
TENTHS = tuple(i / 10 for i in range(11))
SIGNED = tuple(i / 10 for i in range(-10, 11))


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
        self._ads = Counter("adrank_stage_ads", "Ads that came in and left.", ["stage", "side"], registry=r)
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
        self._arms = Counter(
            "adrank_arm_requests", "Requests of dealt users.", ["experiment", "arm", "status"], registry=r
        )
        self._arm_total = Histogram(
            "adrank_arm_request_seconds",
            "The same as adrank_request_seconds, by arm.",
            ["experiment", "arm"],
            buckets=BUCKETS,
            registry=r,
        )
        self._shadow = Counter("adrank_shadow_requests", "Requests for the shadow.", ["outcome"], registry=r)
        self._shadow_seconds = Histogram("adrank_shadow_seconds", "Stages of the shadow.", buckets=BUCKETS, registry=r)
        self._overlap = Histogram(
            "adrank_shadow_overlap", "Share of the ads that the shadow shows too.", buckets=TENTHS, registry=r
        )
        self._correlation = Histogram(
            "adrank_shadow_rank_correlation", "Spearman, over the ads shown.", buckets=SIGNED, registry=r
        )
        self._psi = Gauge("adrank_shadow_psi", "Population stability index.", registry=r, multiprocess_mode="livemax")
        self._users = Counter("adrank_users", "Requests by what was known of the user.", ["user"], registry=r)
        self._events = Counter("adrank_events", "Events received.", ["outcome"], registry=r)
        self._anew = Counter("adrank_records_started_anew", "Unreadable records replaced by events.", registry=r)
        self._flagged = Gauge(
            "adrank_flagged_ads", "Ads with a flag.", ["flag"], registry=r, multiprocess_mode="livemax"
        )
        self._flags_age = Gauge(
            "adrank_ad_flags_age_seconds", "Since flags were read.", registry=r, multiprocess_mode="livemax"
        )
        self._logged = Counter("adrank_served_log", "Answers for the log, by what became.", ["outcome"], registry=r)
        self._shadow_logged = Counter("adrank_shadow_log", "Scores of the shadow for the log.", ["outcome"], registry=r)
        self._trimmed = Counter("adrank_log_trimmed", "Entries that nobody took.", ["stream"], registry=r)
        self._refused = Counter("adrank_overload_refusals", "Requests refused at once.", registry=r)
        self._in_flight = Gauge(
            "adrank_in_flight_requests", "Requests in flight.", registry=r, multiprocess_mode="livesum"
        )

        self._versions = Gauge(
            "adrank_state_version",
            "Versions of the desired state: wanted, agreed, serving.",
            ["what"],
            registry=r,
            multiprocess_mode="liveall",
        )
        self._state_age = Gauge(
            "adrank_state_age_seconds", "Since the state was looked at.", registry=r, multiprocess_mode="livemax"
        )
        self._bundles = Gauge(
            "adrank_bundles_loaded", "Bundles that are loaded.", registry=r, multiprocess_mode="liveall"
        )
        self._swaps = Counter("adrank_swaps", "Versions of the state that were served.", registry=r)
        self._bundles_refused = Counter("adrank_bundles_refused", "Bundles that were refused.", registry=r)
        self._prepare = Histogram(
            "adrank_prepare_seconds", "Time to prepare a bundle.", buckets=PREPARE_BUCKETS, registry=r
        )

        # What every request writes to is looked up once: 8 times `labels` takes 30 us.
        self._requests_of, self._total_of = cache(self._requests.labels), cache(self._total.labels)
        self._stage_of, self._users_of = cache(self._stage.labels), cache(self._users.labels)
        self._ads_of = cache(self._ads.labels)
        self._rungs_of = cache(self._rungs.labels)
        self._arms_of, self._arm_total_of = cache(self._arms.labels), cache(self._arm_total.labels)

    def answered(self, route: str, status: int, seconds: float, arms: Mapping[str, str] = NONE) -> None:
        """A request was answered; `arms`: experiment -> arm that the hash dealt to its user."""
        self._requests_of(route, str(status)).inc()
        self._total_of(route).observe(seconds)
        for experiment, arm in arms.items():
            self._arms_of(experiment, arm, str(status)).inc()
            self._arm_total_of(experiment, arm).observe(seconds)

    def shadowed(self, outcome: str) -> None:
        """A request for the shadow was ranked, dropped, refused, or failed."""
        self._shadow.labels(outcome).inc()

    def compared(self, seconds: float, overlap: float, correlation: float | None, psi: float) -> None:
        """What the shadow made of a request."""
        self._shadow_seconds.observe(seconds)
        self._overlap.observe(overlap)
        if correlation is not None:
            self._correlation.observe(correlation)
        self._psi.set(psi)

    def ranked(self, timing: RequestTiming) -> None:
        """Take over the record of one rank or score request."""
        for name, ms in timing.waits.items():
            self._stage_of(name).observe(ms / 1e3)
        for stage in timing.stages:
            if stage.degraded is None:
                self._stage_of(stage.key or stage.name).observe(stage.ms / 1e3)
            self._ads_of(stage.name, "in").inc(stage.seen)
            self._ads_of(stage.name, "out").inc(stage.kept)
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

    def served_log(self, outcome: str, count: int) -> None:
        """So many answers were logged, or dropped."""
        self._logged.labels(outcome).inc(count)

    def shadow_log(self, outcome: str, count: int) -> None:
        """The shadow's scores of so many answers were logged, or dropped."""
        self._shadow_logged.labels(outcome).inc(count)

    def log_trimmed(self, stream: str, count: int) -> None:
        """So many entries of a stream gave way to new ones before they were taken."""
        self._trimmed.labels(stream).inc(count)

    def refused(self) -> None:
        """A request was refused because too many were in flight."""
        self._refused.inc()

    def in_flight(self, count: int) -> None:
        """So many requests are in flight now."""
        self._in_flight.set(count)

    def versions(self, wanted: int, agreed: int, serving: int) -> None:
        """Versions of the desired state, as this process knows them."""
        for what, version in (("wanted", wanted), ("agreed", agreed), ("serving", serving)):
            self._versions.labels(what).set(version)

    def state_age(self, seconds: float) -> None:
        """The desired state was looked at so long ago."""
        self._state_age.set(seconds)

    def bundles_held(self, count: int) -> None:
        """So many bundles are loaded."""
        self._bundles.set(count)

    def swapped(self) -> None:
        """Another version of the desired state is served."""
        self._swaps.inc()

    def bundle_refused(self) -> None:
        """A bundle was refused."""
        self._bundles_refused.inc()

    def prepared(self, seconds: float) -> None:
        """A bundle was prepared, or refused, in so long."""
        self._prepare.observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus reads; of all workers where there are several."""
        if SHARED_DIR not in os.environ:
            return generate_latest(self._registry)
        _forget_the_dead(Path(os.environ[SHARED_DIR]))
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)


def _forget_the_dead(shared: Path) -> None:
    """A worker that was killed serves no version any more."""
    for pid in {path.stem.rpartition("_")[2] for path in shared.glob("gauge_live*.db")}:
        with suppress(ValueError, PermissionError):  # PermissionError: it lives, as somebody else's
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                mark_process_dead(int(pid), str(shared))  # type: ignore[no-untyped-call]
