"""The prepared catalogue and demo users -> the bundle's arrays."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bundle.ad_index import AdIndex
from bundle.ad_vectors import AdVectors
from bundle.bitmap import of_rows
from bundle.rounding import Coded
from bundle.row_sets import write_row_sets
from bundle.schema import FIRST_KNOWN
from bundle.vocabulary import Vocabulary
from models.data.prepared import PreparedData


def write_catalogue(
    data: PreparedData,
    index: AdIndex,
    qscores: npt.NDArray[np.float32],
    vectors: npt.NDArray[np.float32],
    folder: Path,
    stored: Coded = "int8",
) -> None:
    """ads/, filters/, targeting/ and vocabulary/ of a bundle folder, its rows in the order of `index`.

    `qscores` float32[n + 2] and `vectors` float32[n + 2, d] are in the order of the prepared data; `stored`: what the
    vectors become.
    """
    (folder / "ads").mkdir()
    index.write(folder / "ads")
    AdVectors.of(vectors[index.places], stored).write(folder / "ads")
    arrays = {
        "fields": data.ads.fields.astype(np.int32),
        "numbers": data.ads.numbers.astype(np.float32),
        "bids": data.ads.bids.astype(np.float32),
        "qscores": qscores.astype(np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"ads/{name}.npy", array[index.places])
    (folder / "vocabulary").mkdir()
    for source in sorted((data.folder / "vocabulary").glob("*.npy")):
        shutil.copyfile(source, folder / "vocabulary" / source.name)
    rows = len(data.ads.fields)
    (folder / "filters").mkdir()
    for name in filter_names(data):
        codes = np.load(data.folder / f"filters/{name}.codes.npy")
        values = Vocabulary.load(data.folder / f"filters/{name}.values.npy")
        ads = index.rows[FIRST_KNOWN:]
        write_row_sets(folder / "filters", name, values, ads, codes[FIRST_KNOWN:], of_rows(ads[:0], rows))
    (folder / "targeting").mkdir()
    for name in targeting_names(data):
        codes, offsets = (np.load(data.folder / f"targeting/{name}.{part}.npy") for part in ("codes", "offsets"))
        values = Vocabulary.load(data.folder / f"targeting/{name}.values.npy")
        targets = np.diff(offsets)
        everywhere = index.rows[FIRST_KNOWN + np.flatnonzero(targets[FIRST_KNOWN:] == 0)]
        ads = np.repeat(index.rows, targets)
        write_row_sets(folder / "targeting", name, values, ads, codes, of_rows(everywhere, rows))


def filter_names(data: PreparedData) -> tuple[str, ...]:
    """Ad fields whose raw values are kept for filters."""
    return tuple(
        sorted(path.name.removesuffix(".values.npy") for path in (data.folder / "filters").glob("*.values.npy"))
    )


def targeting_names(data: PreparedData) -> tuple[str, ...]:
    """Context fields by which ads are targeted."""
    return tuple(sorted(rule.context for rule in data.prepared.spec.targeting))


def user_count(data: PreparedData, limit: int | None) -> int:
    """How many users `copy_users` will copy."""
    total = len(Vocabulary.load(data.folder / "users/ids.npy"))
    return total if limit is None else min(limit, total)


def copy_users(data: PreparedData, target: Path, limit: int | None) -> None:
    """Packed records of all users, or of `limit` evenly spread ones. Nothing is written when there are none."""
    total, kept = len(Vocabulary.load(data.folder / "users/ids.npy")), user_count(data, limit)
    if not kept:
        return
    source = data.folder / "users"
    if kept == total:
        shutil.copytree(source, target)
        return
    target.mkdir()
    chosen = np.linspace(0, total - 1, kept).astype(np.int64)
    offsets, records = np.load(source / "offsets.npy"), np.load(source / "records.npy", mmap_mode="r")
    pieces = [records[offsets[i] : offsets[i + 1]] for i in chosen]
    np.save(target / "ids.npy", np.load(source / "ids.npy")[chosen])
    np.save(target / "offsets.npy", np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64))
    np.save(target / "records.npy", np.concatenate(pieces))
