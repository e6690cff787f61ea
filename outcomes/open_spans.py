"""The spans of time whose late clicks may still come, in memory as columns."""

from collections.abc import Iterable
from typing import Any

import polars as pl

from outcomes.joining import SEEN, SERVED, SHADOWED, SHOWN, beside, joined, seen_of, served_of, shadowed_of
from outcomes.training import TrainingLog

Lines = Iterable[dict[str, Any]]


class OpenSpans:
    """Requests by span, and the events that may belong to them."""

    def __init__(self, span_ms: int, window_ms: int, training: TrainingLog | None) -> None:
        self.span_ms, self.window_ms = span_ms, window_ms
        self._training = training
        self._since = 0
        self._known = pl.DataFrame(schema={"request_id": pl.String(), "at_ms": pl.Int64()})
        """Answers of the last window, also of spans that are over: a write that was repeated is told by them."""
        self._requests = pl.DataFrame(schema=SERVED)
        self._shown = pl.DataFrame(schema=SHOWN)
        self._seen = pl.DataFrame(schema=SEEN)
        self._shadowed = pl.DataFrame(schema=SHADOWED)
        self._features = pl.DataFrame(schema=training.schema) if training is not None else pl.DataFrame()
        self.changed: set[int] = set()
        """Beginnings of the spans of which something is new."""

    def first_open(self, now_ms: int) -> int:
        """The beginning of the first span that may still change when the streams are at `now_ms`."""
        return max(0, (now_ms - self.window_ms) // self.span_ms * self.span_ms)

    def since(self, begin_ms: int) -> None:
        """Spans before this one are over: what is known of them goes."""
        self._since = begin_ms
        self._requests = self._requests.filter(pl.col("at_ms") >= begin_ms)
        keep = self._requests.select("request_id")
        self._shown = self._shown.join(keep, on="request_id", how="semi", maintain_order="left")
        if self._training is not None:
            self._features = self._features.join(keep, on="request_id", how="semi", maintain_order="left")
        self._known = self._known.filter(pl.col("at_ms") >= begin_ms - self.window_ms)
        self._seen = self._seen.filter(pl.col("at_ms") >= begin_ms - self.window_ms)
        self._shadowed = self._shadowed.filter(pl.col("at_ms") >= begin_ms - self.window_ms)
        self.changed = {each for each in self.changed if each >= begin_ms}

    def add_served(self, lines: Lines) -> None:
        """Answers and scores of the shadow, in the order of their entries. An answer whose request id came before
        within the window is the same one, written twice because Redis did not say that it had it."""
        whole = list(lines)
        shadowed = shadowed_of(line for line in whole if "shadow" in line)
        lines = [line for line in whole if "shadow" not in line]
        requests, shown = served_of(lines)
        ids = pl.concat([self._known, requests.select("request_id", "at_ms")])
        lag = ids.select(pl.col("at_ms") - pl.col("at_ms").shift().over("request_id")).to_series()
        again = (lag <= self.window_ms).fill_null(value=False)[len(self._known) :]
        self._known = ids
        fresh = (requests["at_ms"] >= self._since) & ~again
        self._requests = pl.concat([self._requests, requests.filter(fresh)])
        kept = [line for line, is_fresh in zip(lines, fresh.to_list(), strict=True) if is_fresh]
        self._shown = pl.concat([self._shown, served_of(kept)[1] if len(kept) < len(lines) else shown])
        if self._training is not None:
            self._features = pl.concat([self._features, self._training.features(kept)])
        self._shadowed = pl.concat([self._shadowed, shadowed])
        self._mark(requests.filter(fresh)["at_ms"])
        self._mark(self._requests.join(shadowed, on="request_id", how="semi")["at_ms"])

    def add_events(self, lines: Lines) -> None:
        """Events, in the order of their entries."""
        seen = seen_of(lines)
        self._seen = pl.concat([self._seen, seen])
        self._mark(self._requests.join(seen, on="request_id", how="semi")["at_ms"])

    def _mark(self, at_ms: pl.Series) -> None:
        self.changed |= set((at_ms // self.span_ms * self.span_ms).unique().to_list())

    def begins(self) -> list[int]:
        """Of all spans that have requests."""
        return sorted(set((self._requests["at_ms"] // self.span_ms * self.span_ms).unique().to_list()))

    def tables(self, begin_ms: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """REQUESTS, with at_ms, IMPRESSIONS and SHADOW of one span."""
        requests = self._requests.filter(pl.col("at_ms").is_between(begin_ms, begin_ms + self.span_ms, closed="left"))
        impressions = joined(requests, self._shown, self._seen, self.window_ms)
        return requests, impressions, beside(requests, impressions, self._shadowed, self.window_ms)

    def features(self) -> pl.DataFrame:
        """The requests' own columns of the training log."""
        return self._features
