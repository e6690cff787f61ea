"""The linear part that FM, DeepFM, FNN and Wide & Deep have: Σ w_i x_i, one weight an id and one a number.

It is the vectors of fields at dimension 1, so several values of a field are averaged, and so are behaviours. A value
has a weight of its own in each place: what a video says as a candidate is not what it says among behaviours.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.networks.fields import FieldVectors
from models.networks.layers import Arena, spread


class FirstOrder(nn.Module):
    """All weights start at 0. There is no bias."""

    def __init__(self, schema: FeatureSchema, dropped: Sequence[str] = ()) -> None:
        """`dropped`: fields without a weight."""
        super().__init__()
        self.arena = Arena(schema, 1, 0.0, shared=False, dropped=dropped)
        self.vectors = FieldVectors(schema, self.arena, 0.0)

    def of_request(
        self, user: Tensor, user_numbers: Tensor, context: Tensor, context_numbers: Tensor, histories: dict[str, Tensor]
    ) -> Tensor:
        """The terms w_i x_i of requests, [B, R]."""
        return self.vectors.of_request(self.arena, user, user_numbers, context, context_numbers, histories).squeeze(-1)

    def of_ads(self, ads: Tensor, ad_numbers: Tensor) -> Tensor:
        """The terms of candidates, [M, A]."""
        return self.vectors.of_ads(self.arena, ads, ad_numbers).squeeze(-1)

    def of_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The terms of requests, [B, R], and of candidates, [M, A]."""
        request, ads = self.vectors.of_batch(self.arena, batch)
        return request.squeeze(-1), ads.squeeze(-1)

    def forward(self, batch: Batch) -> Tensor:
        """The sum of all terms of each candidate, [M]."""
        request, ads = self.of_batch(batch)
        return spread(request.sum(-1), batch.request) + ads.sum(-1)
