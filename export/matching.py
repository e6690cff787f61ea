"""What retrieval looks ads up in: a faiss index over the ad vectors, and posting lists by interest."""

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from bundle.schema import FIRST_KNOWN, FeatureSchema

EXACT = 50_000
"""Up to this many ads every vector is compared: 50,000 x 33 take about 1 ms, and nothing is missed."""


def write_index(vectors: npt.NDArray[np.float32], path: Path, seed: int = 0) -> None:
    """Inner-product index of catalogue vectors float32[rows, d]; its labels are rows, the reserved ones left out.

    Few ads are compared one by one, many through an inverted file of 8-bit codes.
    """
    ads = np.ascontiguousarray(vectors[FIRST_KNOWN:], dtype=np.float32)
    rows = np.arange(FIRST_KNOWN, len(vectors), dtype=np.int64)
    dimension = vectors.shape[1]
    lists = int(4 * np.sqrt(len(ads)))
    recipe = "IDMap,Flat" if len(ads) <= EXACT else f"IVF{lists},SQ8"
    index = faiss.index_factory(dimension, recipe, faiss.METRIC_INNER_PRODUCT)
    chosen = np.random.default_rng(seed).choice(len(ads), min(len(ads), 64 * lists), replace=False)
    index.train(ads[chosen])
    index.add_with_ids(ads, rows)
    faiss.write_index(index, str(path))


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
