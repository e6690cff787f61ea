"""DICM, deep image CTR model (Ge et al., "Image Matters", arXiv 1711.06505): images of the ad and of the behaviours.

image i          -> vector v_i, fixed              -> small trainable network, the same for all -> e_i of r numbers
ad               -> embeddings of its fields and e_ad
each history     -> the mean of its behaviours' embeddings, the same for all candidates of a request
its images       -> Σ_j a(q, e_j) e_j for each query q; with `queries: both` (the paper's multi-query attentive pooling)
                    q = e_ad and q = P·[the ad's embeddings], side by side; with `image` the first alone
everything       -> multi-layer perceptron -> logit

a is DIN's activation unit (models/networks/attention.py). The paper's second query is the ad's id; all fields of the ad
are asked here, as the id of a new ad says nothing.

e_i depends on the image alone. In training the network reduces the distinct images of a batch, once each; for
evaluation all of them are reduced once, and a request gathers r numbers an image. That table is what a checkpoint keeps
and a bundle serves: the vectors themselves are not needed any more, and the reducing network costs nothing online.

Letters: B requests, M candidates, L behaviours, V numbers of a vector, r of a reduced one.
"""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.schema import PADDING, FeatureSchema, FieldSpec
from models.config import ConfigError
from models.data.batches import Batch
from models.data.prepared import PreparedData, Vectors
from models.networks.attention import ActivationUnit, Pooling
from models.networks.config import DicmConfig
from models.networks.layers import Mlp, key, linear
from models.networks.network import Network

CHUNK = 65_536
"""Images reduced at once for the table."""


class Images(nn.Module):
    """The reduced vector of every id of a field; in training made of the vectors, else from a table."""

    continuing = "counted"
    """The table is made anew of the data's vectors (models/continuing.py); the reducing network is the Dicm's."""

    reduced: Tensor

    def __init__(self, field: FieldSpec, width: int) -> None:
        """`width`: r."""
        super().__init__()
        self.field = field
        self.register_buffer("reduced", torch.zeros(field.size, width))
        self.source: _Source | None = None

    def of(self, ids: Tensor, reduction: nn.Module) -> Tensor:
        """[n, r] of ids [n], through `reduction` in training, as it is now."""
        if not self.training:
            return F.embedding(ids, self.reduced)
        distinct, place = torch.unique(ids, return_inverse=True)
        return F.embedding(place, reduction(self.vectors(distinct)))

    def vectors(self, ids: Tensor) -> Tensor:
        """float32[n, V] of ids [n]. ConfigError when there are none: in training they come from the prepared data."""
        if self.source is None:
            raise ConfigError(f"the vectors of {self.field.name!r} are not there; training reads the prepared data's")
        return torch.from_numpy(self.source.vectors[ids.numpy()]).float()

    def fill(self, reduction: nn.Module) -> None:
        """Make the table, where the vectors are there."""
        if self.source is not None:
            with torch.no_grad():
                for some in torch.split(torch.arange(len(self.reduced)), CHUNK):
                    self.reduced[some] = reduction(self.vectors(some))


class _Source:
    """Vectors on disk; a copy of the network, for averaged weights, reads the same."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors

    def __deepcopy__(self, _memo: dict[int, Any]) -> "_Source":
        return self


class Dicm(Network):
    """Logit of each candidate."""

    def __init__(self, config: DicmConfig, schema: FeatureSchema) -> None:
        """ConfigError when the schema has no such field with vectors, or no history has it."""
        super().__init__(
            schema,
            config.embedding,
            config.embedding_std,
            tables=config.tables,
            dropped=config.dropped_fields,
        )
        self.config = config
        field = field_with_vectors(schema, config.vectors)
        self.column = schema.ad.columns_of(field.name).start
        self.seen = {
            h.name: h.fields.index(field.name) - len(h.fields) for h in schema.histories if field.name in h.fields
        }
        if not self.seen:
            raise ConfigError(f"model.vectors: no history has the field {field.name!r}, so no behaviour has an image")
        r = config.reduction[-1]
        self.images = Images(field, r)
        self.reduction = Mlp(field.vector, config.reduction[:-1], r, "prelu", 0.0)

        def units() -> nn.ModuleDict:
            unit = (r, config.attention_hidden, config.attention_activation, config.attention)
            return nn.ModuleDict(
                {key(h): Pooling(ActivationUnit(*unit)) for h in schema.histories if h.name in self.seen}
            )

        self.by_image = units()
        self.by_fields = units() if config.queries == "both" else None
        self.query = linear(self.ad.dimension, r) if config.queries == "both" else None
        pooled = r * len(self.seen) * (2 if config.queries == "both" else 1)
        width = self.request_width + self.history_width + self.ad.dimension + r + pooled
        self.mlp = Mlp(width, config.hidden, 1, config.activation, config.dropout)
        if config.position_bias:
            self.learn_positions()

    def prepare(self, data: PreparedData) -> None:
        """Take the vectors of the training data. ConfigError when they do not fit the schema."""
        super().prepare(data)
        field = self.images.field
        vectors = data.vectors.get(field.name)
        if vectors is None or vectors.shape != (field.size, field.vector):
            has = None if vectors is None else list(vectors.shape)
            raise ConfigError(
                f"{data.folder}: vectors of {field.name!r} must be {[field.size, field.vector]}, they are {has}"
            )
        self.take(vectors)

    def take(self, vectors: Vectors) -> None:
        """Use these vectors [size, V], row i that of id i."""
        self.images.source = _Source(vectors)

    def train(self, mode: bool = True) -> Self:
        """As nn.Module; on the way to evaluation all images are reduced by the network as it is now."""
        super().train(mode)
        if not mode:
            self.images.fill(self.reduction)
        return self

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        ads, (image, behaviours) = self.of_ads(batch), self.of_images(batch)
        once = torch.cat([self.of_request(batch), *self.of_histories(batch.histories)], dim=-1)
        each = [ads, image]
        for h in self.schema.histories:
            if h.name in self.seen:
                filled = batch.histories[h.name][..., 0] != PADDING
                each.append(self.by_image[key(h)](image, behaviours[h.name], filled, batch.request))
                if self.by_fields is not None and self.query is not None:
                    asked = self.query(ads)
                    each.append(self.by_fields[key(h)](asked, behaviours[h.name], filled, batch.request))
        return self.biased(self.mlp.grouped(once, torch.cat(each, dim=-1), batch.request).squeeze(-1), batch)

    def of_images(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Reduced images of the candidates [M, r] and of each history's behaviours [B, L, r]."""
        ids = [batch.ads[:, self.column]] + [batch.histories[name][..., column] for name, column in self.seen.items()]
        sizes = [each.numel() for each in ids]
        if not self.training:  # a gather each: nothing is put together only to be cut
            found = [self.images.of(each, self.reduction) for each in ids]
        else:
            flat = self.images.of(torch.cat([each.flatten() for each in ids]), self.reduction)
            found = [part.view(*each.shape, -1) for part, each in zip(torch.split(flat, sizes), ids, strict=True)]
        return found[0], dict(zip(self.seen, found[1:], strict=True))


def field_with_vectors(schema: FeatureSchema, name: str | None) -> FieldSpec:
    """The ad field of that name, or the only one that has vectors. ConfigError when it is none."""
    fields = [field for field in schema.ad.id_fields if field.vector]
    found = [field for field in fields if name in (None, field.name)]
    if len(found) != 1:
        raise ConfigError(
            f"model.vectors: {name!r} is not one ad field with vectors, there are {[field.name for field in fields]}; "
            "the dataset's description says which columns have vectors"
        )
    return found[0]
