"""Prepared data decoded back to raw values, to be compared with what was put in."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bundle.folder import DemoUsers
from bundle.record import UserRecord, unpack
from bundle.schema import FeatureSchema, Kind, Side
from bundle.vocabulary import Vocabulary
from models.data.prepared import SPLITS, PreparedData


def value(vocabulary: Vocabulary, i: int) -> int | str | None:
    """The raw value of an id, None for unknown."""
    return vocabulary.value_of(i) if i >= 2 else None


def side(data: PreparedData, fields: Side, ids: list[int]) -> dict[str, Any]:
    """An encoded row: values, lists of values, or bucket ids by field."""
    row: dict[str, Any] = {}
    for field, place in fields.slices():
        if field.kind is Kind.BUCKETED:
            row[field.name] = ids[place.start]
        elif field.kind is Kind.MULTIVALUED:
            row[field.name] = [value(data.vocabularies[field.vocabulary or ""], i) for i in ids[place] if i]
        else:
            row[field.name] = value(data.vocabularies[field.vocabulary or ""], ids[place.start])
    return row


def requests(data: PreparedData, split: str) -> list[dict[str, Any]]:
    """The requests of a split, sorted by time, user and candidates; empty when it has none."""
    paths = sorted((data.folder / split).glob("part-*.parquet"))
    return sorted((r for path in paths for r in _part(data, path)), key=lambda r: (r["time"], r["user"], str(r["ads"])))


def everything(data: PreparedData) -> dict[str, Any]:
    """All splits, decoded, with the number of each user."""
    return {split: requests(data, split) for split in SPLITS}


def _part(data: PreparedData, path: Path) -> list[dict[str, Any]]:
    schema: FeatureSchema = data.schema
    rows = pl.read_parquet(path).to_dicts()
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    for row in rows:
        row["ads"] = [value(data.ads.index, i) for i in row["ads"]]
        for name, fields in (("user", schema.user), ("context", schema.context)):
            row |= {f"{name}.{k}": v for k, v in side(data, fields, row.pop(f"{name}_ids", [])).items()}
        for history in schema.histories:
            listed = row[f"history_{history.name}"]
            if history.of_ads:
                row[f"history_{history.name}"] = [value(data.ads.index, i) for i in listed]
            else:
                by_name = {field.name: field for field in schema.ad.fields}
                words = [data.vocabularies[by_name[name].vocabulary or ""] for name in history.fields]
                pairs = np.array(listed, dtype=np.int64).reshape(-1, len(words)).tolist()
                row[f"history_{history.name}"] = [
                    tuple(value(w, i) for w, i in zip(words, p, strict=True)) for p in pairs
                ]
    return rows


def ads(data: PreparedData) -> dict[int | str, dict[str, Any]]:
    """The catalogue by ad id."""
    rows = data.ads.fields.tolist()
    return {data.ads.index.value_of(i): side(data, data.schema.ad, rows[i]) for i in range(2, data.ads.index.size)}


def users(data: PreparedData) -> dict[str, UserRecord]:
    """The packed records by user id."""
    folder = data.folder / "users"
    stored = DemoUsers(
        Vocabulary.load(folder / "ids.npy"), np.load(folder / "offsets.npy"), np.load(folder / "records.npy")
    )
    found = {name: stored.get(name) for name in stored.ids()}
    return {name: unpack(packed) for name, packed in found.items() if packed is not None}
