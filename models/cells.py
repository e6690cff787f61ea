"""Which ads lie near each other: k-means over the ad vectors, whose cells matching visits (bundle/cells.py)."""

from typing import Any

import faiss as untyped
import numpy as np
import numpy.typing as npt

from bundle.schema import FIRST_KNOWN

faiss: Any = untyped
"""Its stubs describe the C++ classes, not what the Python wrappers accept."""
SMALLEST = 4
"""Ads a cell, on average, in catalogues of up to SMALLEST · MOST ads. Small ones then lose no more than exact search
would: of the demo's best 10, 2,000 matched of 5,000 ads hold .924, in cells of 8 ads .907, the exact nearest .919."""
MOST = 4_000
"""Cells at most. More find a little more, and cost in proportion to make. Share of the 1,000 ads best by DQM that are
left after Qscore: 10^6 ads with 1,000 / 2,000 / 4,000 cells .924 / .932 / .939, with the exact 10^5 nearest .941."""
LEARNT_FROM = 40
"""Ads a cell that k-means learns from."""
ROUNDS = 10
CHUNK = 1 << 18
"""Ads put into cells at once."""


def cell_of_ads(vectors: npt.NDArray[np.float32], seed: int = 0) -> npt.NDArray[np.int64]:
    """The cell of each ad, int64[n], from 0; of catalogue vectors float32[n + 2, d]. Some cells may have none."""
    ads = vectors[FIRST_KNOWN:]
    cells = min(len(ads) // SMALLEST, MOST)
    if cells < 2:
        return np.zeros(len(ads), dtype=np.int64)
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(ads), min(len(ads), LEARNT_FROM * cells), replace=False))
    means = faiss.Kmeans(
        ads.shape[1], cells, niter=ROUNDS, seed=seed, min_points_per_centroid=1, max_points_per_centroid=LEARNT_FROM
    )
    means.train(np.ascontiguousarray(ads[chosen], dtype=np.float32))
    found = np.empty(len(ads), dtype=np.int64)
    for start in range(0, len(ads), CHUNK):
        piece = np.ascontiguousarray(ads[start : start + CHUNK], dtype=np.float32)
        found[start : start + CHUNK] = means.index.search(piece, 1)[1][:, 0]
    return found
