"""Whether users come to the arms in the shares they were dealt: a test that may be looked at after every user.

Lindon and Malek, Anytime-Valid Inference for Multinomial Count Data (arXiv 2011.03567): the counts' likelihood under a
Dirichlet mixture around the stated shares, over that under the shares themselves. Under these it is a martingale that
starts at 1, so it ever exceeds 1/α with a probability of at most α (Ville's inequality).
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln, logsumexp

from outcomes.statistics.moments import Float64

CONCENTRATIONS = (100.0, 10_000.0)
"""Users that the mixtures are worth; the evidence is their mean. Around ½, shares of the first are about
√(¼ / 10²) = 5 points off, those of the second 0.5: a gross mismatch is found in few users, a fine one at all."""


def log_e_value(counts: Float64, shares: Sequence[float]) -> Float64:
    """Natural logarithm of the evidence against `shares` [arms], for `counts` [..., arms] of users; [...].

    ValueError for shares that are not above 0 or do not sum to 1.
    """
    stated = np.asarray(shares, np.float64)
    if stated.min() <= 0.0 or abs(stated.sum() - 1.0) > 1e-6:
        raise ValueError(f"shares are {list(shares)}: each must be above 0, all of them 1")
    mixtures = [_log_mixture(counts, concentration, stated) for concentration in CONCENTRATIONS]
    log_e: Float64 = logsumexp(mixtures, axis=0) - np.log(len(mixtures)) - (counts * np.log(stated)).sum(axis=-1)
    return log_e


def _log_mixture(counts: Float64, concentration: float, stated: Float64) -> Float64:
    """Log likelihood of the counts, in their order, under a Dirichlet mixture around `stated`."""
    prior = concentration * stated
    whole = gammaln(concentration) - gammaln(concentration + counts.sum(axis=-1))
    log_mixture: Float64 = whole + (gammaln(prior + counts) - gammaln(prior)).sum(axis=-1)
    return log_mixture
