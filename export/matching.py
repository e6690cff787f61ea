"""Posting lists: the ads of each interest a user may have."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bundle.schema import FIRST_KNOWN, FeatureSchema


def write_postings(
    schema: FeatureSchema, name: str, fields: npt.NDArray[np.int32], worth: npt.NDArray[np.float32], folder: Path
) -> None:
    """NAME.rows.npy and NAME.offsets.npy: rows of the ads with each value of field `name`, the worthiest first.

    Padding and the unknown value have empty lists: they are nobody's interest.
    """
    columns = fields[FIRST_KNOWN:, schema.ad.columns_of(name)]
    size = next(field.size for field in schema.ad.fields if field.name == name)
    row = np.repeat(np.arange(FIRST_KNOWN, len(fields), dtype=np.int32), columns.shape[1])
    value = columns.ravel()
    known = value >= FIRST_KNOWN
    row, value = row[known], value[known]
    order = np.lexsort((row, -worth[row], value))
    np.save(folder / f"{name}.rows.npy", row[order])
    np.save(folder / f"{name}.offsets.npy", np.searchsorted(value[order], np.arange(size + 1)).astype(np.int64))
