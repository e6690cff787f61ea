"""Which ads may be shown for a request: live flags, targeting, the request's filters. Found once, honoured everywhere.

Every condition is a bitmap over the catalogue, so that 10^7 ads cost what reading 1.25 MB a condition costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle import bitmap
from bundle.bitmap import Bitmap
from bundle.folder import Bundle
from bundle.row_sets import RowSets
from service.schemas import Filter

Passed = tuple[tuple[str, Bitmap], ...]
"""For each condition the reason it gives and the ads that pass it."""


@dataclass(frozen=True, slots=True)
class Eligibility:
    """The outcome of all conditions that concern a request."""

    allowed: Bitmap | None
    """None: every ad. Never holds reserved rows."""
    ads: int
    """How many ads are allowed."""
    passed: Passed

    def reasons(self, rows: npt.NDArray[np.integer]) -> list[str | None]:
        """For each row the first condition that it fails; None for an ad that is allowed."""
        found: list[str | None] = [None] * len(rows)
        for reason, passed in reversed(self.passed):
            for i in (~bitmap.test(passed, rows)).nonzero()[0].tolist():
                found[i] = reason
        return found


def allowed_by(
    bundle: Bundle, filters: Mapping[str, Filter], context: Mapping[str, Any], flags: Passed = ()
) -> Eligibility:
    """The ads that pass the live `flags`, the ads' targeting and the request's `filters`.

    A targeted ad passes where the context's value is one of its own; where the context has none, or one never seen,
    only ads without that targeting pass. A filter value that no ad has matches none.
    """
    rows = bundle.ads.index.size
    targeting = tuple(
        (f"targeting: {field}", sets.union([context.get(field)])) for field, sets in bundle.targeting.items()
    )
    asked = tuple((f"filter: {field}", _passed(bundle.filters[field], each, rows)) for field, each in filters.items())
    passed = (*flags, *targeting, *asked)
    if not passed:
        return Eligibility(None, len(bundle.ads.index), ())
    allowed = _all([each for _, each in passed])
    return Eligibility(allowed, bitmap.count(allowed), passed)


def _passed(sets: RowSets, asked: Filter, rows: int) -> Bitmap:
    if asked.any_of is not None:
        return sets.union(asked.any_of)
    return bitmap.without(sets.union(asked.none_of or []), rows)


def _all(sets: Sequence[Bitmap]) -> Bitmap:
    """The rows that are in all of them."""
    if len(sets) == 1:
        return sets[0]
    together = sets[0] & sets[1]
    for each in sets[2:]:
        np.bitwise_and(together, each, out=together)
    return together
