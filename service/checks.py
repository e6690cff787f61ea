"""What a request must fulfil beyond its shape: the limits that are set, and the fields its bundle offers."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from bundle.folder import Bundle
from bundle.schema import HistorySpec
from service.errors import InvalidRequestError
from service.flag_stores import FLAGS
from service.schemas import EventIn, EventsRequest, FlagsQuery, FlagsRequest, Given, RankRequest, ScoreRequest
from service.settings import Settings

ALWAYS_KNOWN = ("click", "impression")
"""Kinds of event every bundle takes, though it may have no use for them."""


def check_rank(request: RankRequest, bundle: Bundle, settings: Settings) -> None:
    """InvalidRequestError names the first field that the settings or the bundle do not allow."""
    _at_most("k", request.k, settings.max_k)
    _at_most("deadline_ms", request.deadline_ms, settings.max_deadline_ms)
    if request.candidates is not None:
        _at_most_long("candidates", len(request.candidates), settings.max_candidates)
    _check_common(request.context, request.user, bundle)
    _known("filters", request.filters, bundle.filters)
    for field, condition in request.filters.items():
        if (condition.any_of is None) == (condition.none_of is None):
            raise InvalidRequestError(
                f"filters.{field} must have any_of or none_of, and not both", f"filters.{field}", "any_of or none_of"
            )


def check_score(request: ScoreRequest, bundle: Bundle, settings: Settings) -> None:
    """See `check_rank`."""
    _at_most("deadline_ms", request.deadline_ms, settings.max_deadline_ms)
    _at_most_long("ads", len(request.ads), settings.max_candidates)
    _check_common(request.context, request.user, bundle)


def check_events(request: EventsRequest, bundles: Sequence[Bundle], settings: Settings) -> None:
    """See `check_rank`; kinds that any of the live bundles reads are taken."""
    _at_most_long("events", len(request.events), settings.max_events)
    kinds = event_kinds(*bundles)
    for i, event in enumerate(request.events):
        if event.kind not in kinds:
            known = ", ".join(kinds)
            raise InvalidRequestError(
                f"events.{i}.kind is {event.kind!r}, known: {known}", f"events.{i}.kind", f"one of: {known}"
            )
        _check_event(f"events.{i}", event, readers(bundles, event.kind))


def check_flags(request: FlagsRequest, settings: Settings) -> None:
    """InvalidRequestError names the first ad that is there twice, or of which nothing is said."""
    _at_most_long("flags", len(request.flags), settings.max_flags)
    seen: dict[str, int] = {}
    for i, each in enumerate(request.flags):
        if each.paused is None and each.budget_exhausted is None:
            names = ", ".join(FLAGS)
            raise InvalidRequestError(f"flags.{i} says nothing of its ad", f"flags.{i}", f"at least one of: {names}")
        if (first := seen.setdefault(str(each.ad_id), i)) != i:
            raise InvalidRequestError(
                f"flags.{i}.ad_id is {each.ad_id!r}, as flags.{first}.ad_id is", f"flags.{i}.ad_id", "no ad twice"
            )


def check_flags_query(query: FlagsQuery, settings: Settings) -> None:
    """InvalidRequestError for more ads than may be asked for, or for two ways of asking at once."""
    _at_most_long("ad_id", len(query.ad_id), settings.max_flags)
    if query.ad_id and query.model_fields_set & {"after", "limit"}:
        raise InvalidRequestError("ad_id goes without after and limit", "ad_id", "ad_id, or after and limit")


def event_kinds(*bundles: Bundle) -> list[str]:
    """All kinds of event that are taken."""
    read = {kind for bundle in bundles for history in bundle.manifest.features.histories for kind in history.events}
    return sorted(read.union(ALWAYS_KNOWN))


def readers(bundles: Iterable[Bundle], kind: str) -> list[HistorySpec]:
    """The histories that events of `kind` append to: those of the first bundle that reads them, which says what such an
    event must carry. A record holds the events of users, whichever bundle reads them later."""
    for bundle in bundles:
        if found := [history for history in bundle.manifest.features.histories if kind in history.events]:
            return found
    return []


def _check_event(place: str, event: EventIn, histories: list[HistorySpec]) -> None:
    if (event.ad_id is None) == (event.values is None):
        raise InvalidRequestError(f"{place} must have ad_id or values, and not both", place, "ad_id or values")
    if event.values is None:
        if histories and not any(history.of_ads for history in histories):
            fields = ", ".join(histories[0].fields)
            raise InvalidRequestError(
                f"{place}.values is missing: {event.kind} events carry {fields}", f"{place}.values", fields
            )
    elif any(history.of_ads for history in histories):
        raise InvalidRequestError(
            f"{place}.ad_id is missing: {event.kind} events carry an ad", f"{place}.ad_id", "an ad id"
        )
    elif histories and len(event.values) > (most := max(len(history.fields) for history in histories)):
        raise InvalidRequestError(
            f"{place}.values has {len(event.values)} values, {event.kind} events carry {most}",
            f"{place}.values",
            f"length at most {most}",
        )


def _check_common(context: Mapping[str, object], user: Given | None, bundle: Bundle) -> None:
    features = bundle.manifest.features
    targeting = bundle.manifest.catalogue.targeting
    _known("context", context, list(dict.fromkeys([*(field.name for field in features.context.fields), *targeting])))
    for name in targeting:
        if isinstance(context.get(name), list):
            raise InvalidRequestError(
                f"context.{name} is a list, ads are targeted by one value", f"context.{name}", "one value"
            )
    if user is None:
        return
    _known("user.profile", user.profile, [field.name for field in features.user.fields])
    histories = {history.name: history for history in features.histories}
    _known("user.history", user.history, histories)
    for name, behaviours in user.history.items():
        history = histories[name]
        for i, behaviour in enumerate(behaviours):
            place = f"user.history.{name}.{i}"
            if history.of_ads and isinstance(behaviour, list):
                raise InvalidRequestError(
                    f"{place} is a list, history {name!r} holds ads: an ad id is needed", place, "an ad id"
                )
            if isinstance(behaviour, list) and len(behaviour) > len(history.fields):
                raise InvalidRequestError(
                    f"{place} has {len(behaviour)} values, history {name!r} holds {', '.join(history.fields)}",
                    place,
                    f"length at most {len(history.fields)}",
                )


def _known(field: str, names: Iterable[str], allowed: Collection[str]) -> None:
    for name in names:
        if name not in allowed:
            listed = ", ".join(allowed) or "none"
            raise InvalidRequestError(
                f"{field}.{name} is not known to this bundle; known: {listed}", f"{field}.{name}", f"one of: {listed}"
            )


def _at_most(field: str, value: int | None, bound: int) -> None:
    if value is not None and value > bound:
        raise InvalidRequestError(f"{field} is {value}, at most {bound} is allowed", field, f"at most {bound}")


def _at_most_long(field: str, length: int, bound: int) -> None:
    if length > bound:
        raise InvalidRequestError(
            f"{field} has {length} entries, at most {bound} are allowed", field, f"length at most {bound}"
        )
