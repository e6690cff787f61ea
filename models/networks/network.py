"""What all networks share: embedded sides, the work that is done once a request, and the bias of the position.

Letters: B requests, M candidates in all, L behaviours.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.schema import PADDING, FeatureSchema
from models.data.batches import Batch, batches
from models.data.prepared import PreparedData
from models.networks.config import TableConfig
from models.networks.encoder import SideEncoder
from models.networks.layers import Arena, key

POSITIONS = 100
"""Positions with a bias of their own; later ones share the last."""
ONLINE_POSITION = 0
"""Where every candidate is taken to stand when it is ranked."""


class Sides(nn.Module):
    """Embeddings of all fields, and each side of a batch as one vector."""

    def __init__(
        self,
        schema: FeatureSchema,
        embedding: int,
        std: float,
        *,
        shared: bool = True,
        tables: Mapping[str, TableConfig] | None = None,
        dropped: Sequence[str] = (),
    ) -> None:
        """`embedding`: the dimension of every id; `std`: the spread of initial embeddings; the rest: see Arena."""
        super().__init__()
        self.schema = schema
        self.arena = Arena(schema, embedding, std, shared=shared, tables=tables, dropped=dropped)
        self.user = SideEncoder(self.arena, schema.user, place="user")
        self.context = SideEncoder(self.arena, schema.context, place="context")
        self.ad = SideEncoder(self.arena, schema.ad, place="ad")
        self.behaviours = nn.ModuleDict(
            {key(h): SideEncoder(self.arena, schema.ad, h.fields, place=key(h)) for h in schema.histories}
        )

    @property
    def request_width(self) -> int:
        """Of `of_request`."""
        return self.user.dimension + self.context.dimension

    @property
    def history_width(self) -> int:
        """Of all histories' behaviours together."""
        return sum(self.behaviour_widths)

    @property
    def behaviour_widths(self) -> list[int]:
        """Of a behaviour of each history."""
        encoders = (self.behaviours[key(h)] for h in self.schema.histories)
        return [each.dimension for each in encoders if isinstance(each, SideEncoder)]

    def of_request(self, batch: Batch) -> Tensor:
        """Fields of user and context, [B, request_width]."""
        user = self.user(self.arena, batch.user, batch.user_numbers)
        return torch.cat([user, self.context(self.arena, batch.context, batch.context_numbers)], dim=-1)

    def of_histories(self, histories: dict[str, Tensor]) -> list[Tensor]:
        """The mean behaviour of each history, [B, width] each; zeros where a history is empty."""
        parts = []
        for history in self.schema.histories:
            ids = histories[history.name]  # [B, L, H]
            filled = (ids[..., 0] != PADDING).unsqueeze(-1)  # [B, L, 1]
            behaviours = self.behaviours[key(history)](self.arena, ids)
            parts.append((behaviours * filled).sum(1) / filled.sum(1).clamp(min=1))
        return parts

    def looked_up(self, batch: Batch) -> Iterator[tuple[SideEncoder, Tensor]]:
        """All ids of a batch, and what looks them up."""
        yield from ((self.user, batch.user), (self.context, batch.context), (self.ad, batch.ads))
        for history in self.schema.histories:
            encoder = self.behaviours[key(history)]
            assert isinstance(encoder, SideEncoder)
            yield encoder, batch.histories[history.name]

    def of_ads(self, batch: Batch) -> Tensor:
        """Fields of the candidates, [M, ad.dimension]."""
        found: Tensor = self.ad(self.arena, batch.ads, batch.ad_numbers)
        return found


def lookups(sides: Sides, data: PreparedData) -> dict[str, Tensor]:
    """Table -> how often each id is looked up in one pass over the training split, int64[size]."""
    counts = {name: torch.zeros(field.size, dtype=torch.int64) for name, field in sides.arena.fields.items()}
    for batch in batches(data, "train", 65_536):
        for encoder, ids in sides.looked_up(batch):
            for each in encoder.columns:
                size = len(counts[each.table])
                counts[each.table] += torch.bincount(ids[..., each.columns].flatten(), minlength=size)
    return counts


class Network(Sides, ABC):
    """A click model over requests with candidates. Batches are request-grouped, in training too, so what depends on the
    request alone is computed once for all of its candidates (the common-feature trick)."""

    def __init__(
        self,
        schema: FeatureSchema,
        embedding: int,
        std: float,
        *,
        shared: bool = True,
        tables: Mapping[str, TableConfig] | None = None,
        dropped: Sequence[str] = (),
    ) -> None:
        """As Sides."""
        super().__init__(schema, embedding, std, shared=shared, tables=tables, dropped=dropped)
        self.position: nn.Embedding | None = None

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""

    def loss(self, batch: Batch) -> Tensor:
        """What training minimises, a scalar: the mean binary cross-entropy of the candidates."""
        return F.binary_cross_entropy_with_logits(self(batch), batch.labels)

    def prepare(self, data: PreparedData) -> None:
        """What a network reads off its training data before the first step: buffers, for networks that have some, and
        which ids a table that was cut keeps."""
        if any(each.config.method == "cut" for each in self.arena.compressed()):
            counted = lookups(self, data)
            for each in self.arena.compressed():
                each.prepare(counted[each.name])

    def after_step(self, learning_rate: float) -> None:
        """What is left to do when the optimiser has moved the weights: a proximal step, for networks that have one."""

    def figures(self) -> dict[str, float]:
        """What a checkpoint's metrics say of the trained weights, beside their number."""
        return {}

    def learn_positions(self) -> None:
        """Give the network a bias for each position, all 0 at first."""
        self.position = nn.Embedding(POSITIONS, 1)
        nn.init.zeros_(self.position.weight)

    def biased(self, logits: Tensor, batch: Batch) -> Tensor:
        """Logits [M] with the bias of the position each ad was shown at, where the network has one. Online all
        candidates are at position 0."""
        if self.position is None:
            return logits
        bias: Tensor = self.position(batch.positions.clamp(max=POSITIONS - 1)).squeeze(-1)
        return logits + bias

    def online_bias(self) -> float | None:
        """What ONLINE_POSITION adds to every logit; None for a network without a bias of the position."""
        return None if self.position is None else float(self.position.weight.detach()[ONLINE_POSITION, 0])


class TwoTower(Network):
    """Candidates meet the request in an inner product only: logit = ⟨query, ad vector⟩ + offset. Ad vectors are stored,
    so such a network retrieves and pre-ranks."""

    @abstractmethod
    def query_of(
        self, user: Tensor, user_numbers: Tensor, context: Tensor, context_numbers: Tensor, histories: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Query vectors [B, d] and offsets [B] from the parts of a batch, which is what the serving graph has."""

    @abstractmethod
    def ad_vectors(self, ads: Tensor, ad_numbers: Tensor) -> Tensor:
        """Ad vectors [M, d]."""

    def query(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Query vectors [B, d] and offsets [B] of the requests in a batch, as they are served: see `online`."""
        query, offset = self._asked(batch)
        return query, self.online(offset)

    def online(self, offset: Tensor) -> Tensor:
        """Offsets [B] with the bias of position 0, at which all candidates are online."""
        return offset if self.position is None else offset + self.position.weight[0]

    def _asked(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.query_of(batch.user, batch.user_numbers, batch.context, batch.context_numbers, batch.histories)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        query, offset = self._asked(batch)
        vectors = self.ad_vectors(batch.ads, batch.ad_numbers)
        return self.biased((query[batch.request] * vectors).sum(-1) + offset[batch.request], batch)
