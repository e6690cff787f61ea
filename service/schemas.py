"""Requests and answers as they go over HTTP. Unknown keys are refused; every text, list and number has a bound.

Requests are pydantic models, parsed from the body in one pass. Answers are plain dictionaries of a declared shape: no
object is made per ad, 500 scores are written in 0.1 ms.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Required

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, StringConstraints, TypeAdapter
from pydantic_core import PydanticKnownError
from typing_extensions import TypedDict

from service.comparison import ShadowOut

MAX_INT = 2**63 - 1
ListId = Annotated[int, Field(strict=True, ge=-MAX_INT, le=MAX_INT)]
ShortText = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=128)]
Id = ListId | ShortText
Text = Annotated[str, StringConstraints(strict=True, max_length=1000)]
Whole = Annotated[int, Field(strict=True, ge=-MAX_INT, le=MAX_INT)]
Number = Annotated[FiniteFloat, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
One = Flag | Whole | Number | Text | None
Value = One | Annotated[list[One], Field(fail_fast=True, max_length=100)]


def at_most(limit: int) -> BeforeValidator:
    """Refuses an object of more than `limit` keys before its values are looked at: pydantic itself counts afterwards,
    and lists an error for each wrong value until then (0.3 s for a body of 0.4 MB)."""

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > limit:
            sizes = {"field_type": "Dictionary", "max_length": limit, "actual_length": len(value)}
            raise PydanticKnownError("too_long", sizes)
        return value

    return BeforeValidator(check)


Values = Annotated[dict[ShortText, Value], Field(max_length=256), at_most(256)]


Behaviours = Annotated[
    list[Id | Annotated[list[One], Field(fail_fast=True, max_length=100)]], Field(fail_fast=True, max_length=1000)
]
"""Every list stops at its first wrong element: an error for each of 100,000 would hold up all other requests."""


class Incoming(BaseModel):
    """Frozen, strict, refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Given(Incoming):
    """User features sent with the request; they go before the stored ones."""

    profile: Values = Field(default={}, description="Raw profile values by field; other fields come from the store.")
    history: Annotated[dict[ShortText, Behaviours], Field(max_length=64), at_most(64)] = Field(
        default={},
        description="Behaviours by history name, oldest first, in place of the stored ones: ad ids, or for histories "
        "that hold values instead of ads, a list of values each.",
    )


class Filter(Incoming):
    """A condition on one ad field. Exactly one of the two."""

    any_of: Annotated[list[One], Field(fail_fast=True, min_length=1, max_length=1000)] | None = Field(
        default=None, description="Only ads with one of these values."
    )
    none_of: Annotated[list[One], Field(fail_fast=True, min_length=1, max_length=1000)] | None = Field(
        default=None, description="Only ads with none of these values."
    )


class RankRequest(Incoming):
    """Which ads to show."""

    user_id: Id = Field(description="Anybody; an unknown user gets ads by context alone.")
    context: Values = Field(default={}, description="Raw context values by field; a missing one counts as unknown.")
    k: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="How many ads; at most ADRANK_MAX_K and what the bundle fine-ranks."
    )
    deadline_ms: Annotated[int, Field(ge=1, le=60_000)] | None = Field(
        default=None, description="Budget. A stage that would miss it is left out and named in `degraded`."
    )
    candidates: Annotated[list[Id], Field(fail_fast=True, min_length=1, max_length=100_000)] | None = Field(
        default=None, description="Rank these ads only; retrieval is left out. At most ADRANK_MAX_CANDIDATES."
    )
    filters: Annotated[dict[ShortText, Filter], Field(max_length=64), at_most(64)] = Field(
        default={}, description="Conditions by ad field, all of which must hold. /v1/bundles names the fields offered."
    )
    user: Given | None = Field(default=None, description="User features sent along.")


class ScoreRequest(Incoming):
    """What each of these ads is worth."""

    user_id: Id = Field(description="Anybody.")
    context: Values = Field(default={}, description="Raw context values by field.")
    ads: Annotated[list[Id], Field(fail_fast=True, min_length=1, max_length=100_000)] = Field(
        description="Ads to score, answered in this order, duplicates included. At most ADRANK_MAX_CANDIDATES."
    )
    deadline_ms: Annotated[int, Field(ge=1, le=60_000)] | None = Field(default=None, description="Budget.")
    user: Given | None = Field(default=None, description="User features sent along.")


class EventIn(Incoming):
    """One thing a user did. Exactly one of `ad_id` and `values`."""

    user_id: Id = Field(description="Who.")
    kind: ShortText = Field(description="click, impression, or another kind the bundle's histories are made of.")
    ad_id: Id | None = Field(default=None, description="The ad, for histories of ads.")
    values: Annotated[list[One], Field(fail_fast=True, min_length=1, max_length=100)] | None = Field(
        default=None, description="The values, for histories that hold values instead of ads."
    )
    time_ms: Annotated[int, Field(ge=0, le=2**53)] | None = Field(default=None, description="Unix milliseconds; now.")
    request_id: ShortText | None = Field(
        default=None, description="The answer of /v1/rank that showed the ad: outcomes are joined by it."
    )


class EventsRequest(Incoming):
    """Appended to the users' histories, all or none."""

    events: Annotated[list[EventIn], Field(fail_fast=True, min_length=1, max_length=100_000)] = Field(
        description="In order of time. At most ADRANK_MAX_EVENTS."
    )


class AdFlagsIn(Incoming):
    """What is said of one ad. At least one of the flags; one that is left out stays as it is."""

    ad_id: Id = Field(description="The ad; it need not be in the catalogue yet.")
    paused: Flag | None = Field(default=None, description="Whether it is not to be shown for now.")
    budget_exhausted: Flag | None = Field(default=None, description="Whether its budget is used up.")


class FlagsRequest(Incoming):
    """Taken by every worker process within ADRANK_FLAGS_POLL_SECONDS, all or none."""

    flags: Annotated[list[AdFlagsIn], Field(fail_fast=True, min_length=1, max_length=100_000)] = Field(
        description="No ad twice. At most ADRANK_MAX_FLAGS."
    )


class FlagsQuery(BaseModel):
    """Which flags to look at. Texts, as they stand in the address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ad_id: Annotated[list[ShortText], Field(max_length=100_000)] = Field(
        default=[], description="These ads, may be given several times. At most ADRANK_MAX_FLAGS."
    )
    after: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="Ads with flags whose ids, as text, come after this one."
    )
    limit: Annotated[int, Field(ge=1, le=1000)] = Field(default=100, description="At most so many of them.")


class RankedAd(TypedDict):
    """One ad of the answer."""

    ad_id: int | str
    position: int
    """1 is the first."""
    pctr: float | None
    """Click probability; null when the model gave no finite number."""
    bid: float
    ecpm: float | None
    """pctr x bid: the order of the list, unless an auction of another kind was set."""


StageOut = TypedDict(
    "StageOut",
    {"name": str, "in": int, "out": int, "ms": float, "degraded": str | None, "note": str | None},
)
"""One stage: ads seen, ads kept, milliseconds, and why it was left out if it was."""

ScoredBy = Literal["finerank", "prerank", "qscore"]


class ExcludedAd(TypedDict):
    """An own candidate that may not be shown."""

    ad_id: int | str
    reason: str
    """paused, budget_exhausted, `targeting: FIELD` or `filter: FIELD`; the first that holds."""


class RankResponse(TypedDict):
    """The answer to a rank request."""

    request_id: str
    version: int
    """Of the desired state that all of the answer is of."""
    arms: Mapping[str, str]
    """Experiment -> arm, for each experiment that the user is in; `control` where no other arm was dealt."""
    bundle_id: str
    user: Literal["known", "unknown", "given"]
    scored_by: ScoredBy
    """The stage that gave every pctr of this answer."""
    rung: str | None
    """The fine-ranker that gave them: `full`, or a further one of the bundle's ladder; null when none did."""
    ads: list[RankedAd]
    stages: list[StageOut]
    degraded: list[str]
    unknown_candidates: list[int | str]
    """Own candidates that are not in the catalogue."""
    excluded_candidates: list[ExcludedAd]
    """Own candidates that were not ranked because they may not be shown; each once."""
    features_ms: float
    queue_ms: float
    total_ms: float


class ScoreResponse(TypedDict):
    """The answer to a score request."""

    request_id: str
    version: int
    arms: Mapping[str, str]
    bundle_id: str
    user: Literal["known", "unknown", "given"]
    scored_by: ScoredBy
    rung: str | None
    pctr: list[float | None]
    """Click probability of each ad, in the order in which the ads were given; null when it is no finite number."""
    unknown_ads: list[int | str]
    """Those outside the catalogue, each once; they were scored as an unknown ad."""
    degraded: list[str]
    features_ms: float
    queue_ms: float
    total_ms: float


class EventsResponse(TypedDict):
    """What became of the events. Ignored: of a kind that no history of a live bundle reads."""

    request_id: str
    accepted: int
    ignored: int
    unknown_ads: int
    """Accepted events whose ad is in no live catalogue: stored, and read as unknown."""
    logged: int
    """Events, ignored ones too, that are in the log of outcomes; 0 where there is none."""


class FlagsChanged(TypedDict):
    """What became of the flags."""

    request_id: str
    changed: int
    """Ads that have other flags than before."""
    unknown_ads: int
    """Ads of the request that are not in the catalogue: their flags are kept, a later bundle may know them."""


class AdFlagsOut(TypedDict):
    """One ad's flags."""

    ad_id: int | str
    paused: bool
    budget_exhausted: bool
    known: bool
    """Whether it is in the catalogue."""


class FlagsResponse(TypedDict):
    """Flags as this process knows them."""

    request_id: str
    flags: list[AdFlagsOut]
    next_after: str | None
    """There may be more: ask again with `after` set to this."""
    paused: int
    """Ads of the catalogue that are paused."""
    budget_exhausted: int
    unknown_ads: int
    """Ads with flags that are not in the catalogue."""
    age_s: float
    """Seconds since the flags were read from the store."""


class GoldenOut(TypedDict):
    """Requests replayed when the bundle was loaded, and the largest differences found on this machine."""

    requests: int
    query_deviation: float
    logit_deviation: float


class RungOut(TypedDict):
    """One fine-ranker of the ladder."""

    name: str
    model: str
    loaded: bool
    """Whether the setting `ladder` lets it run."""
    expected_ms: float | None
    """What fine-ranking as many ads as leave the pre-ranker takes here, by the running mean; null when not loaded."""
    worth: dict[str, object] | None
    """Cost and quality as the export measured them; null for a bundle without a ladder."""


class BundleOut(TypedDict):
    """A live bundle."""

    bundle_id: str
    serves: list[str]
    """`control`, `EXPERIMENT:ARM` of the running arms that name the bundle, and `shadow`."""
    made: dict[str, object]
    stages: dict[str, object]
    sizes: dict[str, int]
    """Ads that leave each stage at most, settings included."""
    ads: int
    quality: dict[str, dict[str, float]]
    context_fields: list[str]
    profile_fields: list[str]
    histories: dict[str, dict[str, object]]
    filters: list[str]
    targeting: list[str]
    """Context fields by which ads are targeted."""
    event_kinds: list[str]
    bytes: int
    golden: GoldenOut
    ladder: list[RungOut]
    """Best first."""
    ladder_step: int
    """The first of those loaded that the load allows now, 0 the best, in the process that answers."""


class ProcessOut(TypedDict):
    """What one process said of itself last."""

    process: str
    serving: int
    prepared: int
    reported_s: float
    """Seconds ago, by the clocks of two processes."""
    bundles: list[dict[str, object]]


class StateOut(TypedDict):
    """The desired state's versions."""

    process: str
    wanted: int
    agreed: int
    serving: int
    age_s: float
    error: str | None
    processes: list[ProcessOut]


class BundlesResponse(TypedDict):
    """All bundles that are loaded, the control's first, and what is wanted, agreed on and served."""

    bundles: list[BundleOut]
    shadow: ShadowOut | None
    state: StateOut


class Health(TypedDict, total=False):
    """A sign of life."""

    status: Required[str]
    bundle_id: str


class ProblemDetail(TypedDict):
    """What was wrong."""

    code: str
    message: str
    field: str | None
    bound: str | None
    request_id: str


class Problem(TypedDict):
    """The body of every answer that is no success."""

    error: ProblemDetail


RANK_RESPONSE = TypeAdapter(RankResponse)
SCORE_RESPONSE = TypeAdapter(ScoreResponse)
EVENTS_RESPONSE = TypeAdapter(EventsResponse)
FLAGS_CHANGED = TypeAdapter(FlagsChanged)
FLAGS_RESPONSE = TypeAdapter(FlagsResponse)
BUNDLES_RESPONSE = TypeAdapter(BundlesResponse)
