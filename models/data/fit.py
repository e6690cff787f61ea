"""Vocabularies, bucket edges and the feature schema, fitted on the training split (and the histories it sees) only."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from bundle.encoding import Encoder
from bundle.schema import FIRST_KNOWN, FeatureSchema, FieldSpec, HistorySpec, Kind, Side
from bundle.vocabulary import Vocabulary
from models.data.columns import flat
from models.data.counting import Counts, edges_of, moments_of
from models.data.gathering import Gathered
from models.data.layout import Layout
from models.data.spec import FeatureColumn


@dataclass(frozen=True, slots=True)
class Fitted:
    """Everything that encoding needs."""

    encoder: Encoder
    index: Vocabulary
    """Ads: id -> catalogue row."""
    ads: pl.DataFrame
    """The normalised ads in the order of their rows."""


def fit(layout: Layout, gathered: Gathered, vectors: Mapping[str, int] | None = None) -> Fitted:
    """Make the schema and its vocabularies from what one pass gathered; `vectors`: widths by ad field that has some."""
    spec = layout.spec
    ads = gathered.ads().sort("ad")
    train_users, train_ads = gathered.train_users.total(), gathered.train_ads.total(ads.schema["ad"])
    behaviour_ads = _behaviour_ads(layout, gathered, train_users, ads.schema["ad"])
    names = _vocabulary_names(spec.user_features, spec.context_features, spec.ad_features)
    vocabularies: dict[str, Vocabulary] = {}

    def user(feature: FeatureColumn) -> FieldSpec:
        column = layout.user_column(feature)
        if column == "user":
            return _field(
                feature, names["user", feature.column], vocabularies, train_users.rename({"value": "user"}), "user"
            )
        if column.startswith("u:"):
            return log(feature, column, names["user", feature.column])
        assert layout.users is not None
        seen = layout.users.select("user", column).join(train_users.rename({"value": "user"}), on="user")
        return _field(feature, names["user", feature.column], vocabularies, seen, column)

    def log(feature: FeatureColumn, column: str, name: str) -> FieldSpec:
        if column in gathered.numbers:
            sample = gathered.numbers[column]
            if feature.kind is Kind.BUCKETED:
                return _bucketed(feature, sample.edges(feature.buckets))
            return FieldSpec(name=feature.column, kind=feature.kind, mean=sample.mean, std=sample.std, log=feature.log)
        return _listed(feature, name, vocabularies, gathered.values[column])

    widths = vectors or {}

    def ad(feature: FeatureColumn) -> FieldSpec:
        column = f"f:{feature.column}"
        if feature.column in widths:  # every value of the catalogue: nothing is fitted to them
            every = ads.select(column, count=pl.lit(1))
            found = _field(feature, names["ad", feature.column], vocabularies, every, column)
            return found.model_copy(update={"vector": widths[feature.column]})
        impressions = ads.select("ad", column).join(train_ads.rename({"value": "ad"}), on="ad")
        further = [
            ads.select("ad", column).join(behaviour_ads.rename({"value": "ad"}), on="ad").select(column, "count")
        ]
        if feature.column in gathered.behaviour_values:
            further.append(
                gathered.behaviour_values[feature.column].total(ads.schema[column]).rename({"value": column})
            )
        return _field(feature, names["ad", feature.column], vocabularies, impressions, column, further)

    schema = FeatureSchema(
        user_key=spec.user,
        ad_key=spec.ad,
        key_type="integer" if ads.schema["ad"] == pl.Int64 else "string",
        user=Side(fields=tuple(user(feature) for feature in spec.user_features)),
        context=Side(fields=tuple(log(f, f"c:{f.column}", names["context", f.column]) for f in spec.context_features)),
        ad=Side(fields=tuple(ad(feature) for feature in spec.ad_features)),
        histories=tuple(
            HistorySpec(name=h.name, fields=h.fields, of_ads=h.of_ads, max_length=h.max_length, events=h.events)
            for h in spec.histories
        ),
    )
    return Fitted(Encoder(schema, vocabularies), Vocabulary(flat(ads["ad"])), ads)


def _behaviour_ads(layout: Layout, gathered: Gathered, train_users: pl.DataFrame, key: pl.DataType) -> pl.DataFrame:
    """How often each ad is in the behaviour log or in a training user's lists, as far as a history keeps them."""
    counts = Counts()
    counts.add_counts(gathered.behaviour_ads.total(key))
    for name in layout.list_columns:
        assert layout.users is not None
        kept = max(history.max_length for history in layout.spec.histories if history.column == name)
        lists = layout.users.join(train_users.rename({"value": "user"}), on="user", how="semi")[f"h:{name}"]
        counts.add(lists.list.tail(kept))
    return counts.total(key)


def _field(
    feature: FeatureColumn,
    name: str,
    vocabularies: dict[str, Vocabulary],
    seen: pl.DataFrame,
    column: str,
    further: Sequence[pl.DataFrame] = (),
) -> FieldSpec:
    """A field whose values stand in `column` and each occur `count` times in training; `further` ones elsewhere."""
    if feature.kind in (Kind.BUCKETED, Kind.NUMBER):
        values, times = seen[column].to_numpy().astype(np.float64), seen["count"].to_numpy()
        if feature.kind is Kind.BUCKETED:
            return _bucketed(feature, edges_of(values, times, feature.buckets))
        mean, std = moments_of(values, times, log=feature.log)
        return FieldSpec(name=feature.column, kind=feature.kind, mean=mean, std=std, log=feature.log)
    counts = Counts()
    for frame in (seen.select(column, "count"), *further):
        several = isinstance(frame.schema[column], pl.List)
        single = frame.filter(pl.col(column).list.len() > 0).explode(column) if several else frame
        counts.add_counts(single.rename({column: "value"}).drop_nulls("value"))
    return _listed(feature, name, vocabularies, counts)


def _listed(feature: FeatureColumn, name: str, vocabularies: dict[str, Vocabulary], counts: Counts) -> FieldSpec:
    kept = counts.total().filter(pl.col("count") >= feature.min_count)
    vocabulary = vocabularies[name] = Vocabulary(flat(kept["value"]))
    return FieldSpec(
        name=feature.column, kind=feature.kind, vocabulary=name, size=vocabulary.size, width=feature.max_values
    )


def _bucketed(feature: FeatureColumn, edges: tuple[float, ...]) -> FieldSpec:
    return FieldSpec(name=feature.column, kind=feature.kind, edges=edges, size=FIRST_KNOWN + len(edges) + 1)


def _vocabulary_names(
    user: Sequence[FeatureColumn], context: Sequence[FeatureColumn], ad: Sequence[FeatureColumn]
) -> Mapping[tuple[str, str], str]:
    """The column's name; with the side before it when two sides have a column of that name."""
    sides = {"user": user, "context": context, "ad": ad}
    used = Counter(feature.column for features in sides.values() for feature in features)
    return {
        (side, feature.column): feature.column if used[feature.column] == 1 else f"{side}.{feature.column}"
        for side, features in sides.items()
        for feature in features
    }
