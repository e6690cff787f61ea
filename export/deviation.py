"""How far a graph of reduced precision is from the fp32 graph, and whether that is near enough to be served."""

from collections.abc import Sequence

import numpy as np

from bundle.encoding import Float32
from bundle.precision import Deviation
from export.parity import sigmoid

TOP = 10
PCTR_MAX = 0.02
"""Largest difference of one click probability."""
PCTR_SHARE = 0.005
"""Mean difference of a click probability ÷ mean click probability: what expected revenue may be off by."""
TIE = 0.005
"""An ad whose click probability is less than this share below the tenth's is as good as the tenth: of candidates whose
scores hardly differ, fp16 changed 4 % of the ten best while no probability moved by more than 0.0002."""
TOP10 = 0.99
"""Smallest share of its ten best ads that are as good as the fp32 graph's.

On KuaiRand tables of one scale a row have differences of 0.0016 and 0.03 % and keep 100 %; tables of one scale in all
0.026, 0.97 % and 99.5 %."""


class PrecisionError(Exception):
    """A graph of reduced precision is too far from the fp32 graph."""


def deviation(found: Sequence[Float32], exact: Sequence[Float32]) -> Deviation | None:
    """`found` against `exact`, logits [N] of each request; None when a logit found is not finite."""
    if not all(np.isfinite(each).all() for each in found):
        return None
    logit_max = max(float(np.abs(a - b).max()) for a, b in zip(found, exact, strict=True))
    one, two = (np.concatenate([sigmoid(each) for each in logits]) for logits in (found, exact))
    gaps = np.abs(one - two)
    return Deviation(
        requests=len(exact),
        candidates=len(one),
        logit_max=logit_max,
        pctr_max=float(gaps.max()),
        pctr_share=float(gaps.mean() / two.mean()),
        top10=float(np.mean([_kept(a, b) for a, b in zip(found, exact, strict=True)])),
    )


def _kept(found: Float32, exact: Float32) -> float:
    """Share of the best by `found` that are as good as the tenth by `exact`."""
    n = min(TOP, len(exact))
    best, tenth = np.argsort(-found, kind="stable")[:n], np.partition(exact, -n)[-n]
    return float(np.mean(sigmoid(exact[best]) >= sigmoid(tenth) * (1 - TIE)))


def complaint(found: Deviation | None) -> str | None:
    """Why a graph that deviates so may not be served; None when it may."""
    if found is None:
        return "its scores are not finite"
    wrong = []
    if found.pctr_max > PCTR_MAX:
        wrong.append(f"a click probability differs by {found.pctr_max:.3g} (at most {PCTR_MAX:g})")
    if found.pctr_share > PCTR_SHARE:
        wrong.append(f"they differ by {found.pctr_share:.2%} on average (at most {PCTR_SHARE:.2%})")
    if found.top10 < TOP10:
        wrong.append(f"{found.top10:.1%} of the ten best ads stay (at least {TOP10:.0%})")
    return ", ".join(wrong) or None
