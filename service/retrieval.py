"""The first stage: nearest ads of the query vector, and posting lists of the user's interests.

Everything is in catalogue rows; they are also the labels in the faiss index, which holds the ads only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss as untyped
import numpy as np
import numpy.typing as npt

from bundle.errors import ContractError
from bundle.folder import Ads, Bundle, Filter
from bundle.manifest import RetrievalStage
from bundle.schema import FIRST_KNOWN, FeatureSchema
from service.selection import Rows, top

faiss: Any = untyped
"""Its stubs describe the C++ classes, not what the Python wrappers accept."""
Mask = npt.NDArray[np.bool_]
"""bool[catalogue rows], padding and the unknown ad included and never True."""


def one_thread_each() -> None:
    """Called in every thread that searches: OpenMP's limit belongs to the calling thread."""
    faiss.omp_set_num_threads(1)


class AdIndex:
    """The faiss index of a bundle, with the exact vectors beside it."""

    def __init__(self, path: Path, stage: RetrievalStage, ads: Ads) -> None:
        """ContractError when the index is unreadable or does not hold the catalogue's vectors."""
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise ContractError(f"{path}: not a faiss index: {str(error)[-200:]}") from error
        expected = len(ads.index), ads.vectors.shape[1]
        if (index.ntotal, index.d) != expected:
            raise ContractError(
                f"{path}: {index.ntotal} vectors of {index.d}, the catalogue has {expected[0]} of {expected[1]}"
            )
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise ContractError(f"{path}: its metric is {index.metric_type}, inner product (0) is needed")
        self._index = index
        self._vectors = ads.vectors
        self._inverted = isinstance(index, faiss.IndexIVF)
        self._nprobe = stage.nprobe
        if self._inverted:
            index.nprobe = stage.nprobe
        self._check_labels(path)

    def nearest(self, query: npt.NDArray[np.float32], n: int, allowed: Mask | None) -> Rows:
        """Rows of about the `n` ads with the largest inner product, best first.

        With `allowed`, only those, and never fewer than the catalogue has: when the index finds too few, the allowed
        ads are compared one by one.
        """
        total = self._index.ntotal
        if total == 0 or n == 0:
            return np.empty(0, dtype=np.int64)
        if allowed is None:
            found = self._search(query, min(n, total))
            return found if len(found) else self._exact(query, n, np.arange(FIRST_KNOWN, total + FIRST_KNOWN))
        enough = min(n, int(np.count_nonzero(allowed)))
        if enough == 0:
            return np.empty(0, dtype=np.int64)
        if enough == n:
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)
            if self._inverted:
                parameters = faiss.SearchParametersIVF(sel=selector, nprobe=self._nprobe)
            else:
                parameters = faiss.SearchParameters(sel=selector)
            found = self._search(query, n, params=parameters)
            if len(found) == n:
                return found
        return self._exact(query, n, np.flatnonzero(allowed))

    def _check_labels(self, path: Path) -> None:
        """ContractError unless labels are catalogue rows: found products must be those of the rows' own vectors.

        8-bit codes are off by about 0.5 %; labels off by one would be off by as much as ads differ.
        """
        if self._index.ntotal == 0:
            return
        query = self._vectors[FIRST_KNOWN]
        products, labels = (each[0] for each in self._index.search(query[None, :], min(100, self._index.ntotal)))
        products, labels = products[labels >= 0], labels[labels >= 0]
        if np.any(labels < FIRST_KNOWN) or np.any(labels >= len(self._vectors)):
            raise ContractError(f"{path}: labels {labels.min()}..{labels.max()} are not catalogue rows")
        gap = float(np.abs(self._vectors[labels] @ query - products).max(initial=0.0))
        if gap > (bound := 0.05 * float(np.abs(products).max(initial=0.0)) + 1e-3):
            raise ContractError(
                f"{path}: its products differ from those of ads/vectors.npy by {gap:.3g}, above {bound:.3g}"
            )

    def _search(self, query: npt.NDArray[np.float32], n: int, **options: Any) -> Rows:
        labels: npt.NDArray[np.int64] = self._index.search(query[None, :], n, **options)[1][0]
        return labels[labels >= 0]

    def _exact(self, query: npt.NDArray[np.float32], n: int, rows: Rows) -> Rows:
        scores = self._vectors[rows] @ query
        chosen = top(scores, n)
        return rows[chosen[np.argsort(-scores[chosen], kind="stable")]]


def interest_rows(
    bundle: Bundle, histories: Mapping[str, npt.NDArray[np.int64]], allowed: Mask | None, limit: int
) -> Rows:
    """At most `limit` rows from the posting lists of what the user's histories hold most; best Qscore first in each.

    `histories`: name -> ids int64[L, columns], oldest first. May hold a row twice.
    """
    stage = bundle.manifest.stages.retrieval
    lists = []
    for field in stage.posting_fields:
        postings = bundle.postings[field]
        for value in interests(bundle.manifest.features, field, histories, stage.interests):
            rows = postings.rows[postings.offsets[value] : postings.offsets[value + 1]].astype(np.int64)
            if allowed is not None:
                rows = rows[allowed[rows]]
            lists.append(rows[: stage.per_interest])
    return np.concatenate(lists)[:limit] if lists else np.empty(0, dtype=np.int64)


def interests(schema: FeatureSchema, field: str, histories: Mapping[str, npt.NDArray[np.int64]], n: int) -> list[int]:
    """The `n` most frequent known values of `field` in the histories.

    Of equals the one nearest to the end of its history comes first, then the earlier history of the schema.
    """
    counts: dict[int, int] = {}
    recency: dict[int, int] = {}
    for history in schema.histories:
        if field not in history.fields or history.name not in histories:
            continue
        mine = schema.ad.columns_of(field)
        columns = [i for i, c in enumerate(schema.history_columns(history)) if mine.start <= c < mine.stop]
        for ago, values in enumerate(reversed(histories[history.name][:, columns].tolist())):
            for value in values:
                if value >= FIRST_KNOWN:
                    counts[value] = counts.get(value, 0) + 1
                    recency[value] = min(ago, recency.get(value, ago))
    return sorted(counts, key=lambda value: (-counts[value], recency[value]))[:n]


def allowed_by(
    filters: Mapping[str, Filter], asked: Mapping[str, tuple[bool, Sequence[object]]], rows: int
) -> Mask | None:
    """Which catalogue rows pass; None when nothing is asked.

    `asked`: field -> (True: one of the values, False: none of the values). A value no ad has matches none.
    """
    if not asked:
        return None
    mask = np.ones(rows, dtype=np.bool_)
    mask[:FIRST_KNOWN] = False
    for field, (wanted, values) in asked.items():
        chosen = filters[field]
        ids = {chosen.values.id_of(value) for value in values}
        table = np.zeros(chosen.values.size, dtype=np.bool_)
        table[[i for i in ids if i >= FIRST_KNOWN]] = True
        mask &= table[chosen.codes] if wanted else ~table[chosen.codes]
    return mask


def union(first: Rows, then: Rows, rows: int, limit: int) -> Rows:
    """Distinct rows of both, ascending: all of `first`, and `then` in its order until `limit` are together.

    A mask over the catalogue instead of numpy.unique, which takes 13 ms for 1e5 ids.
    """
    mask = np.zeros(rows, dtype=np.bool_)
    mask[first] = True
    missing = then[~mask[then]]
    mask[missing[: max(0, limit - int(np.count_nonzero(mask)))]] = True
    return np.flatnonzero(mask)
