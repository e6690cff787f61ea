"""The tables of outcomes: Parquet, partitioned by the day on which a request was answered, UTC.

    requests/date=2026-11-23/1763884800000.parquet       a row a rank request
    impressions/date=2026-11-23/1763884800000.parquet    a row an ad that a user saw
    shadow/date=2026-11-23/1763884800000.parquet         a row an ad that a user saw and the shadow scored

A file holds the requests of a span of time and is named by its beginning, Unix milliseconds. While late clicks may
come it is replaced by newer ones, each time as a whole.
"""

from pathlib import Path

import polars as pl

from outcomes import durable
from outcomes.segments import day_of

REQUESTS = {
    "request_id": pl.String(),
    "time_ms": pl.Int64(),
    "user_id": pl.String(),
    "version": pl.Int64(),
    "arms": pl.List(pl.String()),
    "bundle_id": pl.String(),
    "status": pl.Int64(),
    "total_ms": pl.Float64(),
    "degraded": pl.Boolean(),
}
"""`arms`: `experiment:arm` of every experiment that the user is in, `experiment:control` among them. `version`: of the
desired state. `status`: of HTTP; requests that were refused as wrong or as too many are not logged."""

IMPRESSIONS = {
    "request_id": pl.String(),
    "time_ms": pl.Int64(),
    "user_id": pl.String(),
    "arms": pl.List(pl.String()),
    "bundle_id": pl.String(),
    "ad_id": pl.String(),
    "position": pl.Int64(),
    "pctr": pl.Float64(),
    "bid": pl.Float64(),
    "clicked": pl.Boolean(),
    "click_time_ms": pl.Int64(),
}
"""`time_ms`: when the ad was seen, `position`: its place in the answer, from 1, `pctr` null where the model gave no
finite number."""

SHADOW = {
    "request_id": pl.String(),
    "time_ms": pl.Int64(),
    "user_id": pl.String(),
    "bundle_id": pl.String(),
    "shadow_bundle_id": pl.String(),
    "ad_id": pl.String(),
    "pctr": pl.Float64(),
    "shadow_pctr": pl.Float64(),
    "clicked": pl.Boolean(),
}
"""Impressions of which the shadow's score is known too. `bundle_id`: of the answer, which gave `pctr`."""

TABLES = {"requests": REQUESTS, "impressions": IMPRESSIONS, "shadow": SHADOW}


def path_of(root: Path, table: str, begin_ms: int) -> Path:
    """The file of the requests of the span that begins at `begin_ms`."""
    return root / table / f"date={day_of(begin_ms)}" / f"{begin_ms}.parquet"


def write_table(root: Path, table: str, begin_ms: int, frame: pl.DataFrame) -> None:
    """Replace one file."""
    durable.write(path_of(root, table, begin_ms), lambda part: frame.write_parquet(part, compression="zstd"))


def read_table(root: Path, table: str, from_ms: int = 0) -> pl.DataFrame:
    """`requests`, `impressions` or `shadow`, of requests that were answered at `from_ms` or later, as far as spans
    tell: up to a span earlier. Empty when there are none."""
    files = sorted((root / table).glob("date=*/[0-9]*.parquet"))
    begins = [int(path.stem) for path in files]
    first = max((i for i, begin in enumerate(begins) if begin <= from_ms), default=0)
    schema = pl.Schema(TABLES[table])
    frames = [pl.read_parquet(path, schema=schema, hive_partitioning=False) for path in files[first:]]
    return pl.concat([pl.DataFrame(schema=schema), *frames])
