"""What the statistics need of an arm: how many users, their sums, and the sums of products of their columns.

A user is one row; impressions of one user are no independent draws, so nothing below the user is counted as one. Sums
add up, so a thousand arms at a hundred looks are arrays with leading dimensions [...], not loops.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Of k columns of an arm's users."""

    users: Float64
    """[...]"""
    total: Float64
    """[..., k]: sums over users."""
    cross: Float64
    """[..., k, k]: sums of products of two columns."""

    @staticmethod
    def of(rows: Float64) -> "Moments":
        """Of one arm's users, `rows` [users, k]."""
        return Moments(np.asarray(float(len(rows))), rows.sum(axis=0), rows.T @ rows)

    @property
    def mean(self) -> Float64:
        """[..., k]; 0 without users."""
        return self.total / np.maximum(self.users, 1.0)[..., None]

    @property
    def scatter(self) -> Float64:
        """[..., k, k]: sums of products of what is left without the mean."""
        return self.cross - self.total[..., :, None] * self.mean[..., None, :]
