"""Clicks an impression, revenue an impression, clicks a promised click: ratios of sums over users, and how far arms are
apart in them.

    R = Σ_u y_u / Σ_u x_u                       y: clicks, say; x: impressions
    z_u = (y_u − R x_u) / mean x                 the delta method: R moves as the mean of z does
    Var R ≈ s² / n                               s²: variance of z in the arm, or in all arms where that is larger

(Deng, Knoblich and Lu, Applying the Delta Method in Metric Analytics, arXiv 1803.06336.) Two users are independent, two
impressions of one are not: z takes all of a user together, so clustering is in the variance whatever its form. An arm
that had few clicks by chance would seem sure of it: few clicks vary little. So no arm's variance counts as smaller than
that of all arms together, which under "no difference" is the same.

CUPED (Deng, Xu, Kohavi and Walker, WSDM 2013) takes from z what was known of the user before the experiment:

    z_u − θ·(p_u − mean p)                       p: the user's past; its mean over all arms
    θ = S_pp⁻¹ S_pz                              over all arms together, each around its own mean

Assignment cannot have changed the past, so the expected difference of arms stays; its variance falls by the share that
the past explains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from outcomes.statistics.moments import Float64, Moments

SINGULAR = 1e-9
"""Past columns that are this close to a combination of others add nothing."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A ratio of one arm; NaN where its denominator is 0. Arrays of the moments' leading shape."""

    value: Float64
    variance: Float64
    """Of `value`, as an estimate. NaN below two users."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and where it lies. Not finite where the data do not say."""

    value: Float64
    low: Float64
    high: Float64


def rates(
    arms: Sequence[Moments], numerator: int, denominator: int, past: Sequence[int] = (), *, pooled: bool = True
) -> list[Rate]:
    """The ratio of two columns in each arm, with the columns `past` taken out (CUPED). Without `pooled` each arm's
    variance is its own, however few clicks it has."""
    places = list(past)
    linear = [_linear(arm, numerator, denominator) for arm in arms]
    theta = _theta(arms, linear, places)
    together = sum(arm.total[..., places] for arm in arms) / np.maximum(sum(arm.users for arm in arms), 1.0)[..., None]
    values, squares = [], []
    for arm, weights in zip(arms, linear, strict=True):
        weights[..., places] -= theta
        values.append(_ratio(arm, numerator, denominator) - ((arm.mean[..., places] - together) * theta).sum(axis=-1))
        squares.append(np.maximum(np.einsum("...i,...ij,...j->...", weights, arm.scatter, weights), 0.0))
    freedom = [np.maximum(arm.users - 1.0, 0.0) for arm in arms]
    least = sum(squares) / np.maximum(sum(freedom), 1.0) if pooled else 0.0
    found = []
    for arm, value, square, free in zip(arms, values, squares, freedom, strict=True):
        known = (free > 0) & np.isfinite(value)
        own = np.maximum(square / np.maximum(free, 1.0), least)
        found.append(Rate(value, np.where(known, own / np.maximum(arm.users, 1.0), np.nan)))
    return found


def within(rate: Rate, width: Float64) -> Estimate:
    """Where the ratio lies: `width` standard errors to each side."""
    half = width * np.sqrt(rate.variance)
    return Estimate(rate.value, rate.value - half, rate.value + half)


def difference(arm: Rate, control: Rate, width: Float64) -> Estimate:
    """Arm minus control; arms share no user."""
    value = arm.value - control.value
    half = width * np.sqrt(arm.variance + control.variance)
    return Estimate(value, value - half, value + half)


def lift(arm: Rate, control: Rate, width: Float64) -> Estimate:
    """Arm ÷ control − 1. Its interval holds every r that (arm − (1 + r) control) does not tell from 0 (Fieller), so it
    leaves 0 out exactly when that of `difference` does. Unbounded while the control's own ratio is not told from 0."""
    a, c = arm.value, control.value
    va, vc = width**2 * arm.variance, width**2 * control.variance
    square = c**2 - vc
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt((a * c) ** 2 - square * (a**2 - va))
        low, high = (a * c - root) / square - 1.0, (a * c + root) / square - 1.0
        bounded = square > 0
        return Estimate(
            np.where(c > 0, a / c - 1.0, np.nan), np.where(bounded, low, -np.inf), np.where(bounded, high, np.inf)
        )


def _ratio(arm: Moments, numerator: int, denominator: int) -> Float64:
    below = arm.total[..., denominator]
    known = below > 0
    ratio: Float64 = np.where(known, arm.total[..., numerator] / np.where(known, below, 1.0), np.nan)
    return ratio


def _linear(arm: Moments, numerator: int, denominator: int) -> Float64:
    """[..., k]: z as a combination of the columns; 0 where the ratio is not known."""
    below = arm.mean[..., denominator]
    known = below > 0
    scale = np.where(known, 1.0 / np.where(known, below, 1.0), 0.0)
    weights: Float64 = np.zeros_like(arm.total)
    weights[..., numerator] = scale
    weights[..., denominator] -= scale * np.where(known, _ratio(arm, numerator, denominator), 0.0)
    return weights


def _theta(arms: Sequence[Moments], linear: Sequence[Float64], places: list[int]) -> Float64:
    """[..., past columns]"""
    if not places:
        return np.zeros((*arms[0].users.shape, 0))
    scatters = [arm.scatter for arm in arms]
    among = sum(each[..., places, :][..., places] for each in scatters)
    both = zip(scatters, linear, strict=True)
    against = sum(np.einsum("...ij,...j->...i", each[..., places, :], weights) for each, weights in both)
    spread = np.sqrt(np.einsum("...ii->...i", among))
    scale = np.where(spread > 0, 1.0 / np.where(spread > 0, spread, 1.0), 0.0)  # correlations: columns of any unit
    inverse = np.linalg.pinv(among * scale[..., :, None] * scale[..., None, :], rtol=SINGULAR, hermitian=True)
    theta: Float64 = np.einsum("...ij,...j->...i", inverse, against * scale) * scale
    return theta
