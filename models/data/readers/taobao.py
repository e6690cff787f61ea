"""Taobao display ads: raw_sample.csv, ad_feature.csv, user_profile.csv and behavior_log.csv, as published on Tianchi.

26 million impressions of eight days and 723 million behaviours; times are Unix seconds. Three names are changed, so
that a thing is called the same in all four files: `userid` of the profiles is `user`, `cate` of the behaviours is
`cate_id`, and `new_user_class_level ` loses the space at its end. NULL and nothing are both missing values.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from models.data import columns
from models.data.readers.files import TextFormat, require, stream, table
from models.data.readers.raw import Chunk, Raw, Reader, Stream, wanted, wanted_behaviours
from models.data.spec import DatasetSpec

TEXT = TextFormat(
    nulls=("", "NULL"),
    types={"pid": pa.string(), "btag": pa.string(), "price": pa.float64()}
    | dict.fromkeys(("user", "time_stamp", "adgroup_id", "nonclk", "clk"), pa.int64())
    | dict.fromkeys(("cate_id", "campaign_id", "customer", "brand", "cate"), pa.int64())
    | dict.fromkeys(("userid", "cms_segid", "cms_group_id", "final_gender_code", "age_level"), pa.int64())
    | dict.fromkeys(("pvalue_level", "shopping_level", "occupation", "new_user_class_level "), pa.int64()),
)
ACTIONS = ("pv", "cart", "fav", "buy")
SECOND = 1000


def files(spec: DatasetSpec, data: Path) -> list[Path]:
    """The files that are read; the behaviours only where a history uses them."""
    names = ["raw_sample.csv", "ad_feature.csv", "user_profile.csv"]
    if _uses_behaviours(spec):
        names.append("behavior_log.csv")
    return require([data / name for name in names])


def open_source(spec: DatasetSpec, data: Path, chunk_rows: int) -> Raw:
    """Impressions, ads, user profiles and, streamed as well, behaviours."""
    needed = wanted(spec, users_in_log=False, ads_in_log=False)
    log = stream([data / "raw_sample.csv"], list(dict.fromkeys([*needed, "nonclk", "clk"])), chunk_rows, TEXT)
    profiles = table([data / "user_profile.csv"], TEXT)
    users = profiles.frame.rename(lambda name: "user" if name == "userid" else name.strip())
    return Raw(
        log=replace(log, chunks=lambda: _clicks_checked(log)),
        users=replace(profiles, frame=users),
        ads=table([data / "ad_feature.csv"], TEXT),
        behaviours=_behaviours(spec, data, chunk_rows) if _uses_behaviours(spec) else None,
        time_unit_ms=SECOND,
    )


def _clicks_checked(log: Stream) -> Iterator[Chunk]:
    """The label is there twice, as clk and as its opposite; DataError where the two do not agree."""
    for chunk in log.chunks():
        clk, nonclk = chunk.frame["clk"], chunk.frame["nonclk"]
        bad = (clk + nonclk != 1) | clk.is_null() | nonclk.is_null()
        columns.refuse(
            f"{chunk.file}: column 'clk'", clk, bad, chunk.first_row, "clk must be 0 or 1 and nonclk 1 - clk"
        )
        yield chunk


def _behaviours(spec: DatasetSpec, data: Path, chunk_rows: int) -> Stream:
    source = ["cate" if name == "cate_id" else name for name in wanted_behaviours(spec)]
    log = stream([data / "behavior_log.csv"], [*source, "btag"], chunk_rows, TEXT)

    def chunks() -> Iterator[Chunk]:
        for chunk in log.chunks():
            action = chunk.frame["btag"]
            bad = action.is_null() | ~action.is_in(ACTIONS)
            columns.refuse(f"{chunk.file}: column 'btag'", action, bad, chunk.first_row, f"known: {', '.join(ACTIONS)}")
            yield replace(chunk, frame=chunk.frame.rename({"cate": "cate_id"}, strict=False))

    return replace(log, chunks=chunks)


def _uses_behaviours(spec: DatasetSpec) -> bool:
    return any(history.source == "behaviours" for history in spec.histories)


READER = Reader(files, open_source)
