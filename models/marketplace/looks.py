"""What the simulated ads look like: a style that moves clicks and that only the image shows, and the image.

    image = [appeal, style] A + noise · N(0, 1),   appeal standardised, style a unit vector, A of N(0, 1) / √rows

Every ad has an image of its own, whether it was ever shown or not: of a new ad, whose id says nothing yet, the image
tells about its appeal, and whether it looks like what a user clicked on before.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.marketplace.spec import MarketplaceSpec

STYLES = 4
"""Dimensions of a style. Two random ones have a mean cosine of 0, with a deviation of 0.5."""
AT_ONCE = 1 << 16
"""Ads whose images are drawn together: at a width of 32 bounds the temporary arrays to some 20 MB."""


@dataclass(frozen=True, slots=True)
class Looks:
    """Of every ad."""

    style: npt.NDArray[np.float32]
    """[ads, STYLES], of length 1, not visible."""
    images: npt.NDArray[np.float16]
    """[ads, spec.images], visible."""


def build_looks(spec: MarketplaceSpec, appeal: npt.NDArray[np.float32]) -> Looks:
    """Styles and images of ads with these appeals, [ads]."""
    random = np.random.default_rng([spec.seed, 8])
    mixing = random.standard_normal((1 + STYLES, spec.images), dtype=np.float32) / np.float32((1 + STYLES) ** 0.5)
    style = random.standard_normal((spec.ads, STYLES), dtype=np.float32)
    style /= np.linalg.norm(style, axis=1, keepdims=True)
    spread = np.float32(spec.effects.appeal or 1.0)
    images = np.empty((spec.ads, spec.images), dtype=np.float16)
    for first in range(0, spec.ads, AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        shown = np.column_stack((appeal[rows] / spread, style[rows])) @ mixing
        noise = random.standard_normal(shown.shape, dtype=np.float32) * np.float32(spec.image_noise)
        images[rows] = shown + noise
    return Looks(style, images)
