"""From a network's logit to one whose probability is true: piecewise linear, strictly rising, so no order changes.

Between the knots lines, outside of them lines of the same slope. One knot is Platt scaling (slope and offset), or, with
slope 1, the correction for negative down-sampling; many are isotonic regression.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from bundle.schema import Frozen


class Calibration(Frozen):
    """How a stage's logits are corrected before they become pCTR."""

    method: Literal["platt", "isotonic", "downsampling"]
    logits: tuple[float, ...] = Field(min_length=1)
    """The knots, rising."""
    calibrated: tuple[float, ...]
    """What they become, rising too."""
    slope: float = Field(gt=0)
    """Below the first knot and above the last one."""

    @model_validator(mode="after")
    def _rising(self) -> "Calibration":
        if len(self.logits) != len(self.calibrated):
            raise ValueError(f"{len(self.logits)} logits, {len(self.calibrated)} calibrated")
        for name in ("logits", "calibrated"):
            if not (np.diff(getattr(self, name)) > 0).all():
                raise ValueError(f"{name} must rise from knot to knot")
        return self

    def of(self, logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Calibrated logits, of the same shape. What is not finite stays so."""
        x: npt.NDArray[np.float64] = np.asarray(logits, dtype=np.float64)
        inside: npt.NDArray[np.float64] = np.interp(x, self.logits, self.calibrated)
        beyond = np.minimum(x - self.logits[0], 0.0) + np.maximum(x - self.logits[-1], 0.0)
        return inside + self.slope * beyond
