"""The catalogue, encoded once: one row an ad after the two reserved ones (0 padding, 1 unknown), as in a bundle."""

from pathlib import Path

import numpy as np
import polars as pl

from bundle.encoding import Ragged
from bundle.schema import FIRST_KNOWN, UNKNOWN
from bundle.vocabulary import Vocabulary
from models.data.columns import encodable, flat
from models.data.fit import Fitted
from models.data.spec import DatasetSpec


def write_catalogue(folder: Path, spec: DatasetSpec, fitted: Fitted) -> None:
    """Write ads/, filters/ and targeting/ into `folder`."""
    side, ads = fitted.encoder.schema.ad, fitted.ads
    ids, numbers = fitted.encoder.encode_rows(
        side, {field.name: encodable(ads[f"f:{field.name}"]) for field in side.fields}, len(ads)
    )
    reserved = np.zeros((FIRST_KNOWN, side.id_columns), dtype=np.int32)
    for _, place in side.slices():
        reserved[UNKNOWN, place.start] = UNKNOWN
    bids = ads["bid"].to_numpy() if "bid" in ads.columns else np.ones(len(ads))
    (folder / "ads").mkdir()
    fitted.index.save(folder / "ads/ids.npy")
    np.save(folder / "ads/fields.npy", np.concatenate((reserved, ids)))
    np.save(folder / "ads/numbers.npy", np.pad(numbers, ((FIRST_KNOWN, 0), (0, 0))))
    np.save(folder / "ads/bids.npy", np.pad(bids, (FIRST_KNOWN, 0), constant_values=1.0).astype(np.float32))
    (folder / "filters").mkdir()
    for feature in spec.ad_features:
        if feature.filter:
            _write_filter(folder / "filters", feature.column, ads[f"f:{feature.column}"])

    (folder / "targeting").mkdir()
    for rule in spec.targeting:
        _write_targeting(folder / "targeting", rule.context, ads[f"t:{rule.context}"])


def _write_targeting(folder: Path, name: str, column: pl.Series) -> None:
    """The values of each ad, kept in full."""
    values = Vocabulary(flat(column.explode(empty_as_null=False, keep_nulls=False).unique().sort()))
    listed = encodable(column)
    assert isinstance(listed, Ragged)
    values.save(folder / f"{name}.values.npy")
    np.save(folder / f"{name}.codes.npy", values.ids_of(listed.values))
    np.save(folder / f"{name}.offsets.npy", np.concatenate(([0] * FIRST_KNOWN, listed.offsets)))


def _write_filter(folder: Path, name: str, column: pl.Series) -> None:
    """Every value of the column, rare ones too: a request may ask for any."""
    values = Vocabulary(flat(column.drop_nulls().unique().sort()))
    values.save(folder / f"{name}.values.npy")
    codes = np.concatenate(([0, UNKNOWN], values.ids_of(flat(column))))
    np.save(folder / f"{name}.codes.npy", codes.astype(np.int32))
