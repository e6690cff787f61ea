"""Fixed vectors of ad values, such as those of images: checked in the source, brought into the order of ids once.

The source has two arrays, the ids and one vector each. A prepared dataset has vectors/FIELD.npy [size, width], where
row i is the vector of id i of the field's vocabulary, as wide a number as the source's; rows 0 and 1, padding and
unknown, are zeros, and so are those of values without a vector.

The vocabulary of such a field holds every value of the catalogue, not only those of the training split: nothing is
learnt of a value but through its vector, so an ad that training never saw keeps what its vector says of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from bundle.schema import FIRST_KNOWN
from bundle.vocabulary import Vocabulary
from models.data.columns import category, flat, refuse
from models.data.prepared import Vectors
from models.data.spec import DataError, DatasetSpec, VectorFiles

CHUNK = 16_384
"""Vectors read at once: at 4,096 numbers of 4 bytes 256 MB."""
KINDS = ("float16", "float32")


@dataclass(frozen=True, slots=True)
class VectorSource:
    """The vectors of one field as they come."""

    file: str
    index: Vocabulary
    """The ids that have a vector."""
    rows: npt.NDArray[np.int64]
    """Row of `values` by place in the index."""
    values: Vectors
    """[n, width], memory-mapped."""

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.values.shape[1])


def vector_files(spec: DatasetSpec, data: Path) -> list[Path]:
    """Every file of vectors and their ids that the description names. DataError when one is missing."""
    found = []
    for _, files in _described(spec):
        for name in (files.ids, files.vectors):
            path = data / name
            if not path.is_file():
                raise DataError(f"{path}: no such file")
            found.append(path)
    return found


def open_vectors(spec: DatasetSpec, data: Path) -> dict[str, VectorSource]:
    """The vectors of each field that has some, all of them checked. DataError names file, row, id and value."""
    vector_files(spec, data)
    return {name: _open(data / files.ids, data / files.vectors) for name, files in _described(spec)}


def write_vectors(
    folder: Path, sources: Mapping[str, VectorSource], vocabularies: Mapping[str, Vocabulary]
) -> dict[str, int]:
    """Write FIELD.npy for each field into `folder`; how many values of each field have no vector.

    `vocabularies`: by field. DataError when no value of a field has one, which is a mistake in the ids.
    """
    folder.mkdir()
    missing = {}
    for name, source in sources.items():
        vocabulary = vocabularies[name]
        places = source.index.ids_of(np.asarray(vocabulary.values)).astype(np.int64) - FIRST_KNOWN
        if len(places) and (places < 0).all():
            raise DataError(
                f"{source.file}: none of the {len(places)} values of {name!r} has a vector; the first value is "
                f"{vocabulary.value_of(FIRST_KNOWN)!r}, the first id {source.index.value_of(FIRST_KNOWN)!r}"
            )
        written = np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=source.values.dtype, shape=(vocabulary.size, source.width)
        )
        for first in range(0, len(places), CHUNK):
            some = places[first : first + CHUNK]
            vectors = source.values[source.rows[np.maximum(some, 0)]]
            vectors[some < 0] = 0
            written[FIRST_KNOWN + first : FIRST_KNOWN + first + len(some)] = vectors
        written.flush()
        missing[name] = int((places < 0).sum())
    return missing


def _described(spec: DatasetSpec) -> list[tuple[str, VectorFiles]]:
    return [(feature.column, feature.vectors) for feature in spec.ad_features if feature.vectors is not None]


def _open(ids_file: Path, file: Path) -> VectorSource:
    ids, values = _load(ids_file), _load(file)
    if values.ndim != 2 or values.shape[1] < 1 or values.dtype.name not in KINDS:
        raise DataError(f"{file}: {values.dtype} {list(values.shape)}, {' or '.join(KINDS)} [n, width] is needed")
    if ids.ndim != 1 or len(ids) != len(values) or not len(ids) or ids.dtype.kind not in "iuU":
        raise DataError(
            f"{ids_file}: {ids.dtype} {list(ids.shape)}, integers or text [{len(values)}] are needed, one for each "
            f"vector of {file.name}"
        )
    named = category(pl.Series(ids), str(ids_file))
    refuse(str(ids_file), named, ~named.is_first_distinct(), 0, "this id is there twice")
    for first in range(0, len(values), CHUNK):
        bad = np.argwhere(~np.isfinite(values[first : first + CHUNK]))
        if len(bad):
            row, column = int(bad[0][0]) + first, int(bad[0][1])
            raise DataError(f"{file}, row {row}, column {column}: {values[row, column]} of id {named[row]!r}")
    keys = flat(named)
    order = np.argsort(keys, kind="stable")
    return VectorSource(str(ids_file), Vocabulary(keys[order]), order.astype(np.int64), values)


def _load(path: Path) -> Vectors:
    try:
        loaded: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: no array: {error}") from error
    return loaded
