"""Requests and answers of the service, as types. docs/api.md says what each field means.

They are the ones of docs/openapi.json by name, field and type, which a test holds in both directions. Bounds are the
service's alone: it names the field and the bound where one is crossed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from client.timing import Exchange

Id = int | str
One = bool | int | float | str | None
Value = One | Sequence[One]
Behaviours = Sequence[Id | Sequence[One]]


class Asked(BaseModel):
    """What is sent: a key that the service does not know, and a number that JSON has not, are refused here already."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Given(Asked):
    """User features that are sent along; they go before the stored ones."""

    profile: Mapping[str, Value] = {}
    history: Mapping[str, Behaviours] = {}
    """Behaviours by history name, oldest first: ad ids, or lists of values."""


class Filter(Asked):
    """A condition on one ad field. Exactly one of the two."""

    any_of: Sequence[One] | None = None
    none_of: Sequence[One] | None = None


class RankRequest(Asked):
    """Which ads to show."""

    user_id: Id
    context: Mapping[str, Value] = {}
    k: int | None = None
    deadline_ms: int | None = None
    candidates: Sequence[Id] | None = None
    filters: Mapping[str, Filter] = {}
    user: Given | None = None


class ScoreRequest(Asked):
    """What each of these ads is worth."""

    user_id: Id
    context: Mapping[str, Value] = {}
    ads: Sequence[Id]
    deadline_ms: int | None = None
    user: Given | None = None


class EventIn(Asked):
    """One thing that a user did. Exactly one of `ad_id` and `values`."""

    user_id: Id
    kind: str
    ad_id: Id | None = None
    values: Sequence[One] | None = None
    time_ms: int | None = None
    request_id: str | None = None
    """Of the answer that showed the ad."""


class EventsRequest(Asked):
    """In order of time; all of them are stored or none."""

    events: Sequence[EventIn]


class Read(BaseModel):
    """What is read. Keys of a newer service are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Answer(Read):
    """An answer of the service, and how it came."""

    _exchange: Exchange = PrivateAttr(default_factory=Exchange)

    @property
    def exchange(self) -> Exchange:
        """Attempts, milliseconds and stage timings of the call."""
        return self._exchange

    def came_by(self, exchange: Exchange) -> None:
        """Note how it came."""
        self._exchange = exchange


class RankedAd(Read):
    """One ad of the answer."""

    ad_id: Id
    position: int
    pctr: float | None
    bid: float
    ecpm: float | None


class StageOut(Read):
    """One stage of the funnel: ads seen and kept, milliseconds, and why it was left out if it was."""

    name: str
    seen: int = Field(alias="in")
    kept: int = Field(alias="out")
    ms: float
    degraded: str | None
    note: str | None


class ExcludedAd(Read):
    """An own candidate that may not be shown."""

    ad_id: Id
    reason: str


ScoredBy = Literal["finerank", "prerank", "qscore"]
Known = Literal["known", "unknown", "given"]


class RankResponse(Answer):
    """The answer to a rank request."""

    request_id: str
    version: int
    arms: dict[str, str]
    bundle_id: str
    user: Known
    scored_by: ScoredBy
    rung: str | None
    ads: tuple[RankedAd, ...]
    stages: tuple[StageOut, ...]
    degraded: tuple[str, ...]
    unknown_candidates: tuple[Id, ...]
    excluded_candidates: tuple[ExcludedAd, ...]
    features_ms: float
    queue_ms: float
    total_ms: float


class ScoreResponse(Answer):
    """The answer to a score request; `pctr` in the order in which the ads were given."""

    request_id: str
    version: int
    arms: dict[str, str]
    bundle_id: str
    user: Known
    scored_by: ScoredBy
    rung: str | None
    pctr: tuple[float | None, ...]
    unknown_ads: tuple[Id, ...]
    degraded: tuple[str, ...]
    features_ms: float
    queue_ms: float
    total_ms: float


class EventsResponse(Answer):
    """What became of the events."""

    request_id: str
    accepted: int
    ignored: int
    unknown_ads: int
    logged: int


class GoldenOut(Read):
    """Requests replayed when the bundle was loaded, and the largest differences."""

    requests: int
    query_deviation: float
    logit_deviation: float


class RungOut(Read):
    """One fine-ranker of the ladder."""

    name: str
    model: str
    loaded: bool
    expected_ms: float | None
    worth: dict[str, Any] | None


class BundleOut(Read):
    """A live bundle."""

    bundle_id: str
    serves: tuple[str, ...]
    made: dict[str, Any]
    stages: dict[str, Any]
    sizes: dict[str, int]
    ads: int
    quality: dict[str, dict[str, float]]
    context_fields: tuple[str, ...]
    profile_fields: tuple[str, ...]
    histories: dict[str, dict[str, Any]]
    filters: tuple[str, ...]
    targeting: tuple[str, ...]
    event_kinds: tuple[str, ...]
    bytes: int
    golden: GoldenOut
    ladder: tuple[RungOut, ...]
    ladder_step: int


class ShadowOut(Read):
    """What the shadow made of requests."""

    bundle_id: str
    share: float
    ranked: int
    dropped: int
    refused: int
    failed: int
    overlap: float | None
    rank_correlation: float | None
    psi: float | None
    ms: float | None
    live_ms: float | None


class ProcessOut(Read):
    """What one process of the service said of itself last."""

    process: str
    serving: int
    prepared: int
    reported_s: float
    bundles: tuple[dict[str, Any], ...]


class StateOut(Read):
    """Versions of the desired state."""

    process: str
    wanted: int
    agreed: int
    serving: int
    age_s: float
    error: str | None
    processes: tuple[ProcessOut, ...]


class BundlesResponse(Answer):
    """The bundles that are loaded, the control's first."""

    bundles: tuple[BundleOut, ...]
    shadow: ShadowOut | None
    state: StateOut


class ProblemDetail(Read):
    """What was wrong."""

    code: str
    message: str
    field: str | None
    bound: str | None
    request_id: str


class Problem(Read):
    """The body of every answer that is no success."""

    error: ProblemDetail
