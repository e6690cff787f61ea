"""Rules of a dataset description that span several of its entries."""

from collections import Counter
from itertools import pairwise

from bundle.schema import Kind
from models.data.spec import CLICK, DataError, DatasetSpec, HistoryColumn


def check_description(spec: DatasetSpec) -> None:
    """What a description may not ask for, whatever the data. DataError names the entry."""
    if not spec.name or "/" in spec.name or spec.name.startswith("."):
        raise DataError(f"name {spec.name!r} cannot name a folder")
    if not (spec.user_features or spec.context_features or spec.histories):
        raise DataError(
            f"{spec.name}: there is no user feature, no context feature and no history: "
            "nothing common to the candidates of a request"
        )
    _check_labels(spec)
    _check_features(spec)
    _check_histories(spec)
    _check_vectors(spec)
    _check_targeting(spec)
    _check_split(spec)


def _check_split(spec: DatasetSpec) -> None:
    """Training, validation, test and the end must follow each other in time."""
    bounds = [(name, getattr(spec.split, name)) for name in ("valid_from", "test_from", "until")]
    given = [(name, bound) for name, bound in bounds if bound is not None]
    for (earlier, first), (later, second) in pairwise(given):
        if first >= second:
            raise DataError(f"{spec.name}: split.{earlier} {first} is not before split.{later} {second}")


def _check_labels(spec: DatasetSpec) -> None:
    if CLICK in spec.labels:
        raise DataError(f"{spec.name}: labels has {CLICK!r}, which is what `label` is called")
    for name, label in spec.labels.items():
        if label.column == spec.label:
            raise DataError(f"{spec.name}: labels.{name}: column {label.column!r} is that of `label`")


def _check_features(spec: DatasetSpec) -> None:
    sides = {
        "user_features": spec.user_features,
        "context_features": spec.context_features,
        "ad_features": spec.ad_features,
    }
    for side, features in sides.items():
        counted = Counter(feature.column for feature in features)
        if twice := [name for name, count in counted.items() if count > 1]:
            raise DataError(f"{spec.name}: {side} name {twice} twice")
        for feature in features:
            if "/" in feature.column or feature.column.startswith("."):
                raise DataError(f"{spec.name}: {side}: column {feature.column!r} cannot name a file")
            if feature.filter and (side != "ad_features" or feature.kind is not Kind.CATEGORICAL):
                raise DataError(
                    f"{spec.name}: {side}: {feature.column!r} is {feature.kind}; filter is for categorical ad features"
                )
            if feature.vectors is not None and (
                side != "ad_features" or feature.kind is not Kind.CATEGORICAL or feature.min_count != 1
            ):
                raise DataError(
                    f"{spec.name}: {side}: {feature.column!r} is {feature.kind} with min_count {feature.min_count}; "
                    "vectors are for categorical ad features, of which every value is kept"
                )
            if feature.kind is not Kind.MULTIVALUED and (feature.max_values != 1 or feature.separator is not None):
                raise DataError(
                    f"{spec.name}: {side}: {feature.column!r} is {feature.kind}; max_values, separator are not for it"
                )


def _check_vectors(spec: DatasetSpec) -> None:
    """Fields with vectors follow all others: networks find the ids that they embed in the first columns."""
    kinds = {feature.column: feature for feature in spec.ad_features}
    with_ids = [feature.column for feature in spec.ad_features if feature.kind is not Kind.NUMBER]
    places = [("ad_features", with_ids), *((f"history {h.name!r}", list(h.fields)) for h in spec.histories)]
    for where, names in places:
        vectors = [kinds[name].vectors is not None for name in names]
        if vectors != sorted(vectors):
            raise DataError(f"{spec.name}: {where}: {names[vectors.index(True)]!r} has vectors, so it must stand last")
        if names and all(vectors):
            raise DataError(f"{spec.name}: {where}: there is no field with ids but {names}, which have vectors")
    for history in spec.histories:
        if not history.of_ads and any(kinds[name].vectors is not None for name in history.fields):
            raise DataError(f"{spec.name}: history {history.name!r}: vectors are of ads, of_ads cannot be false")


def _check_histories(spec: DatasetSpec) -> None:
    kinds = {feature.column: feature.kind for feature in spec.ad_features}
    names = Counter(history.name for history in spec.histories)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise DataError(f"{spec.name}: two histories are called {repeated[0]!r}")
    seen: dict[str, HistoryColumn] = {}
    for history in spec.histories:
        for name in history.fields:
            if kinds[name] is Kind.NUMBER or not (history.of_ads or kinds[name] is Kind.CATEGORICAL):
                raise DataError(
                    f"{spec.name}: history {history.name!r}: field {name!r} is {kinds[name]}, which it cannot hold"
                )
        if not history.of_ads and history.source != "behaviours":
            raise DataError(
                f"{spec.name}: history {history.name!r}: source {history.source!r} is of ads, of_ads cannot be false"
            )
        for kind in history.events:
            other = seen.setdefault(kind, history)
            if _events(other) != _events(history):
                raise DataError(
                    f"{spec.name}: {other.name!r} and {history.name!r} make {kind!r} events of different things: "
                    "a user's event is stored once, so source, column and what it carries must be the same"
                )


def _check_targeting(spec: DatasetSpec) -> None:
    names = Counter(rule.context for rule in spec.targeting)
    if repeated := [name for name, count in names.items() if count > 1]:
        raise DataError(f"{spec.name}: targeting names context {repeated[0]!r} twice")
    kinds = {feature.column: feature.kind for feature in spec.context_features}
    for rule in spec.targeting:
        if not rule.context or "/" in rule.context or rule.context.startswith("."):
            raise DataError(f"{spec.name}: targeting: context {rule.context!r} cannot name a file")
        if (kind := kinds.get(rule.context, Kind.CATEGORICAL)) is not Kind.CATEGORICAL:
            raise DataError(f"{spec.name}: targeting: context {rule.context!r} is {kind}, which has no single values")


def _events(history: HistoryColumn) -> tuple[object, ...]:
    """What the stored events of a history are made of: two that share a kind of event must agree on it."""
    listed_as = history.events[0] if history.column is not None else None
    return history.source, history.column, listed_as, history.of_ads, None if history.of_ads else history.fields
