"""Intervals that hold at every look at once, however often and whenever one looks and stops.

Means and ratios: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
(arXiv 2103.06476, theorem 2.2). With x = ρ² t, t growing with the data,

    |estimate − truth| < standard error · √((1 + 1/x) · (log(1 + x) + 2 log(1/α)))        at all t, with 1 − α

ρ is free but fixed beforehand. It is chosen so that the interval is tightest, beside a fixed-sample one, at a stated
t*: ρ² t* = −W₋₁(−α²/e) − 1, W₋₁ the lower branch of Lambert's function; 8.21 for α = 0.05, where the factor is 3.04
instead of 1.96.

t is the number of impressions of both arms. For users who come once it grows as the number of users does. Users who
come back add to their own rows. The bound still holds, because what a user does later resembles what the same user did
before: a Gaussian process whose values hang together more than those of a Brownian motion crosses a bound less often
(Slepian's inequality).

Shares of independent events (slow or failed requests): the beta-binomial mixture (Robbins 1970), exact at any size.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, lambertw

from outcomes.statistics.moments import Float64

CONCENTRATION = 100.0
"""Events that the prior of a share is worth: at 0.01, spread over about 0 to 0.03."""


def best(alpha: float) -> float:
    """ρ² t at which the interval is tightest."""
    return float(-lambertw(-(alpha**2) / np.e, -1).real - 1.0)


def width(seen: Float64, planned: float, alpha: float) -> Float64:
    """Standard errors to each side, after `seen` impressions, tightest at `planned`."""
    x = best(alpha) * np.asarray(seen, np.float64) / planned
    with np.errstate(divide="ignore"):
        wide: Float64 = np.sqrt((1.0 + 1.0 / x) * (np.log1p(x) - 2.0 * np.log(alpha)))
    return wide


@dataclass(frozen=True, slots=True)
class Share:
    """A share of independent events, and where it lies."""

    value: float
    low: float
    high: float


def share(count: int, of: int, near: float, alpha: float) -> Share:
    """`count` of `of` events; the bounds hold at every look. They are tightest for shares about `near`, in (0, 1).

    ValueError without events.
    """
    if not 0 <= count <= of or of == 0:
        raise ValueError(f"{count} of {of} events: at least 1 is needed, and no more than all")
    a, b = CONCENTRATION * near, CONCENTRATION * (1.0 - near)
    mixed = float(betaln(a + count, b + of - count) - betaln(a, b))

    def against(p: float) -> float:
        """Log e-value of the hypothesis that the share is p, above log(1/α) where it is refuted."""
        hits = count * np.log(p) if count else 0.0
        misses = (of - count) * np.log1p(-p) if count < of else 0.0
        return float(mixed - hits - misses + np.log(alpha))

    value, least, most = count / of, 1e-15, 1.0 - 1e-15
    low = brentq(against, least, value) if count and against(least) > 0 else 0.0
    high = brentq(against, value, most) if count < of and against(most) > 0 else 1.0
    return Share(value, float(low), float(high))
