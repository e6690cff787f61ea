"""The first model of a cascade: an ad's smoothed click-through rate, as in models/qscore.py, handed on as log-odds.

    x(ad) = log-odds((clicks + m·p) / (shown + m)) − log-odds(p)

p is the overall rate of the training split, m the strength that maximises the likelihood. Ads that were never shown
have 0. A training row's own label is left out of its statistic: with it, the second model would read the answer there.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from bundle.schema import FIRST_KNOWN, FeatureSchema, Kind
from models.data.batches import Batch, batches
from models.data.prepared import PreparedData
from models.data.spec import DataError
from models.qscore import fit_strength


class Cascade(nn.Module):
    """Counts by the id of the ad's key. They are buffers: saved with the weights and exported with the graph."""

    continuing = "counted"
    """Training that goes on counts anew (models/continuing.py)."""
    clicks: Tensor
    shown: Tensor
    rate: Tensor
    strength: Tensor

    def __init__(self, schema: FeatureSchema) -> None:
        """DataError when the ad's key is no feature of the ads."""
        super().__init__()
        field = next((each for each in schema.ad.id_fields if each.name == schema.ad_key), None)
        if field is None or field.kind is not Kind.CATEGORICAL:
            raise DataError(f"model.cascade: the ads' key {schema.ad_key!r} is none of their categorical features")
        self.column = schema.ad.columns_of(field.name).start
        # float32 counts up to 16,777,216 exactly
        self.register_buffer("clicks", torch.zeros(field.size))
        self.register_buffer("shown", torch.zeros(field.size))
        self.register_buffer("rate", torch.tensor(0.5))
        self.register_buffer("strength", torch.tensor(1.0))

    def count(self, data: PreparedData) -> None:
        """Clicks and impressions of the whole training split, also of what training that goes on leaves out. DataError
        when there is no rate to smooth."""
        size = len(self.shown)
        shown, clicks = np.zeros(size), np.zeros(size)
        for batch in batches(replace(data, since=None), "train", 65_536):
            ids = batch.ads[:, self.column].numpy()
            shown += np.bincount(ids, minlength=size)
            clicks += np.bincount(ids, weights=batch.labels.numpy(), minlength=size)
        if not 0 < clicks.sum() < shown.sum():
            raise DataError(
                f"{data.folder}: train has {clicks.sum():.0f} clicks in {shown.sum():.0f} impressions, a rate is "
                "needed for the cascade"
            )
        rate = float(clicks.sum() / shown.sum())
        self.shown.copy_(torch.from_numpy(shown))
        self.clicks.copy_(torch.from_numpy(clicks))
        self.rate.fill_(rate)
        self.strength.fill_(fit_strength(shown[FIRST_KNOWN:], clicks[FIRST_KNOWN:], rate))

    def forward(self, batch: Batch) -> Tensor:
        """x of each candidate, [M]. In training the candidate's own impression is left out."""
        ids = batch.ads[:, self.column]
        clicks, shown = self.clicks[ids], self.shown[ids]
        if self.training:
            clicks, shown = (clicks - batch.labels).clamp(min=0), (shown - 1).clamp(min=0)
        a, b = self.strength * self.rate, self.strength * (1 - self.rate)
        return torch.log(clicks + a) - torch.log(shown - clicks + b) - torch.log(a) + torch.log(b)
