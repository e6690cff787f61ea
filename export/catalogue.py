"""The prepared catalogue and demo users -> the bundle's arrays."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bundle.vocabulary import Vocabulary
from models.data.prepared import PreparedData


def write_catalogue(
    data: PreparedData, qscores: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], folder: Path
) -> None:
    """ads/, filters/ and vocabulary/ of a bundle folder."""
    (folder / "ads").mkdir()
    data.ads.index.save(folder / "ads/ids.npy")
    arrays = {
        "fields": data.ads.fields.astype(np.int32),
        "numbers": data.ads.numbers.astype(np.float32),
        "bids": data.ads.bids.astype(np.float32),
        "qscores": qscores.astype(np.float32),
        "vectors": vectors.astype(np.float32),
    }
    for name, array in arrays.items():
        np.save(folder / f"ads/{name}.npy", array)
    for name in ("filters", "vocabulary"):
        (folder / name).mkdir()
        for source in sorted((data.folder / name).glob("*.npy")):
            shutil.copyfile(source, folder / name / source.name)


def filter_names(data: PreparedData) -> tuple[str, ...]:
    """Ad fields whose raw values are kept for filters."""
    return tuple(
        sorted(path.name.removesuffix(".values.npy") for path in (data.folder / "filters").glob("*.values.npy"))
    )


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
