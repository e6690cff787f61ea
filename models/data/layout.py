"""Where each column of a description is found in an opened source, checked before anything heavy is done.

Normalised, the tables have the columns

    users   user, f:COLUMN for each user feature, h:COLUMN for each list of ads
    ads     ad, f:COLUMN for each ad feature, t:FIELD for each context field that ads are targeted by, bid
    log     user, ad, time, label, split (0 train, 1 valid, 2 test), row (number in the log), position, truth,
            y:NAME further labels, p:NAME their true probabilities,
            r:COLUMN request columns, c:COLUMN context features, u:COLUMN user features that sit in the log,
            l:COLUMN lists of ads that the request was served with,
            and, where there is no table of ads, f:COLUMN, t:FIELD and bid as in ads
    behaviours   user, time, row, ad (histories of ads), f:COLUMN for each field that behaviours carry themselves
"""

from dataclasses import dataclass

import polars as pl

from models.data import columns
from models.data.description import check_description
from models.data.readers.raw import SPLIT, Chunk, Raw, Table
from models.data.spec import DataError, DatasetSpec, FeatureColumn, HistoryColumn


@dataclass(frozen=True, slots=True)
class Layout:
    """A source whose columns are all where the description says."""

    spec: DatasetSpec
    raw: Raw
    users: pl.DataFrame | None
    ads: pl.DataFrame | None
    """None: the features sit in the log."""
    comes_split: bool

    @property
    def list_columns(self) -> list[str]:
        """The user table's lists of ads that histories use."""
        return _columns(self.spec, logged=False)

    @property
    def logged_columns(self) -> list[str]:
        """The log's lists of ads that histories use."""
        return _columns(self.spec, logged=True)

    @property
    def behaviour_histories(self) -> list[HistoryColumn]:
        """Histories made from the behaviour log."""
        return [history for history in self.spec.histories if history.source == "behaviours"]

    @property
    def carried_fields(self) -> list[str]:
        """Ad features that behaviours carry themselves."""
        return list(dict.fromkeys(name for h in self.behaviour_histories if not h.of_ads for name in h.fields))

    @property
    def request_columns(self) -> list[str]:
        """Columns of the normalised log that tell requests of one user apart."""
        known = {self.spec.user: "user", self.spec.ad: "ad", self.spec.time: "time"}
        if not self.spec.request:
            return ["row"]
        return list(dict.fromkeys(known.get(name, f"r:{name}") for name in self.spec.request))

    def user_column(self, feature: FeatureColumn) -> str:
        """The column of the normalised log, or of the users, that holds a user feature."""
        if feature.column == self.spec.user:
            return "user"
        return f"f:{feature.column}" if self.users is not None else f"u:{feature.column}"

    def log_features(self) -> dict[str, FeatureColumn]:
        """Features by the column of the normalised log that holds them; ad features without an ad table excepted."""
        found = {f"c:{feature.column}": feature for feature in self.spec.context_features}
        if self.users is None:
            found |= {f"u:{f.column}": f for f in self.spec.user_features if f.column != self.spec.user}
        return found

    def normalise(self, chunk: Chunk, row: int) -> pl.DataFrame:
        """One piece of the log, validated; its first row is row number `row` of the whole log."""
        spec, frame = self.spec, chunk.frame

        def place(name: str) -> tuple[pl.Series, str, int]:
            return frame[name], f"{chunk.file}: column {name!r}", chunk.first_row

        found = {
            "user": columns.key(*place(spec.user)),
            "ad": columns.key(*place(spec.ad)),
            "time": columns.time(*place(spec.time)),
            "label": columns.label(*place(spec.label)),
        }
        found["split"] = columns.split(*place(SPLIT)) if self.comes_split else self._by_time(found["time"])
        found["row"] = pl.int_range(row, row + len(frame), dtype=pl.Int64, eager=True)
        if spec.position is not None:
            found["position"] = columns.position(*place(spec.position))
        if spec.truth is not None:
            found["truth"] = columns.probability(*place(spec.truth))
        for name, further in spec.labels.items():
            found[f"y:{name}"] = columns.label(*place(further.column))
            if further.truth is not None:
                found[f"p:{name}"] = columns.probability(*place(further.truth))
        for name in self.request_columns:
            if name.startswith("r:"):
                found[name] = frame[name[2:]]
        for name in self.logged_columns:
            found[f"l:{name}"] = _lists_of_ads(found["ad"].dtype, *place(name))
        for name, feature in self.log_features().items():
            series, where, first = place(feature.column)
            found[name] = columns.feature(series, feature, where, first)
        if self.ads is None:
            for feature in spec.ad_features:
                series, where, first = place(feature.column)
                found[f"f:{feature.column}"] = columns.feature(series, feature, where, first)
            for rule in spec.targeting:
                series, where, first = place(rule.ad)
                found[f"t:{rule.context}"] = columns.targets(series, rule.separator, where, first)
            if spec.bid is not None:
                found["bid"] = columns.bid(*place(spec.bid))
        return pl.DataFrame({name: series.alias(name) for name, series in found.items()})

    def normalise_behaviours(self, chunk: Chunk, row: int) -> pl.DataFrame:
        """One piece of the behaviour log, validated; its first row is row number `row` of the whole."""
        spec, frame = self.spec, chunk.frame

        def place(name: str) -> tuple[pl.Series, str, int]:
            return frame[name], f"{chunk.file}: column {name!r}", chunk.first_row

        found = {"user": columns.key(*place(spec.user)), "time": columns.time(*place(spec.time))}
        found["row"] = pl.int_range(row, row + len(frame), dtype=pl.Int64, eager=True)
        if any(history.of_ads for history in self.behaviour_histories):
            found["ad"] = columns.key(*place(spec.ad))
        for name in self.carried_fields:
            found[f"f:{name}"] = columns.category(*place(name))
        return pl.DataFrame({name: series.alias(name) for name, series in found.items()})

    def _by_time(self, times: pl.Series) -> pl.Series:
        split = pl.zeros(len(times), dtype=pl.Int8, eager=True)
        for code, first in ((1, self.spec.split.valid_from), (2, self.spec.split.test_from)):
            if first is not None:
                split = split.set(times >= first, code)
        return split


def lay_out(spec: DatasetSpec, raw: Raw) -> Layout:
    """Check the description against the source; DataError names the file, the column and the value."""
    check_description(spec)
    comes_split = SPLIT in raw.log.columns
    if comes_split and spec.split.by_time:
        raise DataError(f"{raw.log.file}: has a column {SPLIT!r}, and the description gives split times too: drop one")
    for history in spec.histories:
        if history.source == "behaviours" and raw.behaviours is None:
            raise DataError(f"{spec.name}: history {history.name!r} needs a behaviour log, and there is none")
    users = None if raw.users is None else _users(spec, raw.users)
    if users is None and _columns(spec, logged=False):
        raise DataError(f"{spec.name}: a history names a column of the user table, and there is no user table")
    ads = None if raw.ads is None else _ads(spec, raw.ads)
    return Layout(spec, raw, users, ads, comes_split)


def _columns(spec: DatasetSpec, *, logged: bool) -> list[str]:
    """Columns of lists of ads, each once: of the log, or of the user table."""
    named = (h.column for h in spec.histories if h.column is not None and (h.source == "logged") == logged)
    return list(dict.fromkeys(named))


def _lists_of_ads(ad: pl.DataType, series: pl.Series, where: str, first_row: int) -> pl.Series:
    lists = columns.several(series, None, where, first_row)
    if lists.dtype != pl.List(ad):
        raise DataError(f"{where}: holds {lists.dtype}, the ad ids are {ad}")
    return lists


def _users(spec: DatasetSpec, source: Table) -> pl.DataFrame:
    frame, named = _table(source, spec.user, "user", spec.user_features)
    for column in _columns(spec, logged=False):
        _need(source, column)
        named[f"h:{column}"] = columns.several(frame[column], None, f"{source.file}: column {column!r}")
    return pl.DataFrame(named)


def _ads(spec: DatasetSpec, source: Table) -> pl.DataFrame:
    frame, named = _table(source, spec.ad, "ad", spec.ad_features)
    for rule in spec.targeting:
        _need(source, rule.ad)
        where = f"{source.file}: column {rule.ad!r}"
        named[f"t:{rule.context}"] = columns.targets(frame[rule.ad], rule.separator, where)
    if spec.bid is not None:
        _need(source, spec.bid)
        named["bid"] = columns.bid(frame[spec.bid], f"{source.file}: column {spec.bid!r}")
    return pl.DataFrame(named)


def _table(
    source: Table, key: str, called: str, features: tuple[FeatureColumn, ...]
) -> tuple[pl.DataFrame, dict[str, pl.Series]]:
    _need(source, key)
    where = f"{source.file}: column {key!r}"
    named = {called: columns.key(source.frame[key], where)}
    columns.refuse(where, named[called], ~named[called].is_first_distinct(), 0, "this id is there twice")
    for feature in features:
        _need(source, feature.column)
        series = columns.feature(source.frame[feature.column], feature, f"{source.file}: column {feature.column!r}")
        named[f"f:{feature.column}"] = series
    return source.frame, named


def _need(source: Table, name: str) -> None:
    if name not in source.frame.columns:
        raise DataError(f"{source.file}: there is no column {name!r}; it has {', '.join(source.frame.columns)}")
