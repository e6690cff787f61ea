"""KuaiRand-Pure, cut for click prediction: impressions_{train,valid,test}, histories, users and videos as Parquet.

Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly Exposed Videos", CIKM 2022.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl

from models.data.readers.files import need_columns, require, stream, table
from models.data.readers.raw import SPLIT, Chunk, Raw, Reader, Stream, wanted
from models.data.spec import DatasetSpec

SPLITS = ("train", "valid", "test")


def files(spec: DatasetSpec, data: Path) -> list[Path]:
    """The files that are read; histories only where the description uses them."""
    names = [f"impressions_{split}.parquet" for split in SPLITS] + ["users.parquet", "videos.parquet"]
    if _lists(spec):
        names.append("histories.parquet")
    return require([data / name for name in names])


def open_source(spec: DatasetSpec, data: Path, chunk_rows: int) -> Raw:
    """The three splits one after the other, users with their history lists, and videos as the ads.

    A description that gives split times has them instead of the source's own splits.
    """
    columns = wanted(spec, users_in_log=False, ads_in_log=False)
    splits = {split: stream([data / f"impressions_{split}.parquet"], columns, chunk_rows) for split in SPLITS}
    users = table([data / "users.parquet"])
    if lists := _lists(spec):
        histories = table([data / "histories.parquet"])
        need_columns(histories.file, histories.frame.columns, [spec.user, *lists])
        listed = histories.frame.select(spec.user, *lists)
        # Rows keep their order, so that a refusal names the row of users.parquet.
        joined = users.frame.join(listed, on=spec.user, how="full", coalesce=True, maintain_order="left_right")
        users = replace(users, frame=joined)
    first = splits["train"]
    rows = sum(part.rows for part in splits.values())
    name = "impressions_*.parquet"
    if spec.split.by_time:
        log = Stream(name, first.columns, rows, lambda: (chunk for part in splits.values() for chunk in part.chunks()))
    else:
        log = Stream(name, (*first.columns, SPLIT), rows, lambda: _labelled(splits))
    return Raw(log, users, table([data / "videos.parquet"]))


def _labelled(splits: dict[str, Stream]) -> Iterator[Chunk]:
    for split, part in splits.items():
        for chunk in part.chunks():
            yield replace(chunk, frame=chunk.frame.with_columns(pl.lit(split).alias(SPLIT)))


def _lists(spec: DatasetSpec) -> list[str]:
    return list(dict.fromkeys(history.column for history in spec.histories if history.column is not None))


READER = Reader(files, open_source)
