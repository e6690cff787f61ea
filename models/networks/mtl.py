"""Multi-scenario multi-task model: one lookup table for all scenes, a network of its own for each (a scene is a task).

user, context, ad  -> embeddings of all fields, concatenated; one table, which all scenes train
each history       -> the mean of its behaviours
shared bottom      -> layers that all scenes share (Caruana, Machine Learning 1997); none where `shared` is empty
everything         -> the network of the request's scene -> logit

`star`: a scene's layer is a common one's weights ⊙ its own, and the sum of both biases, so that all scenes train the
common one and a scene with few clicks stays near it (STAR, Sheng et al., arXiv 2101.11427).

The weights of all scenes' networks are one array a layer, [S, out, width]: a request picks its scene's by index. With
one scene and no shared bottom this is GwEN. Slopes of PReLU and the statistics of Dice are those of all scenes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from bundle.schema import FIRST_KNOWN, FeatureSchema
from models.config import ConfigError
from models.data.batches import Batch
from models.networks.activations import Activation
from models.networks.config import MtlConfig
from models.networks.layers import grouped, linear, spread
from models.networks.network import Network


class SceneLinear(nn.Module):
    """A linear layer a scene. `star`: its weights are a common layer's ⊙ the scene's own, its bias is the sum."""

    def __init__(self, scenes: int, width: int, out: int, star: bool) -> None:
        super().__init__()
        self.common = linear(width, out) if star else None
        if star:
            self.weight = nn.Parameter(torch.ones(scenes, out, width))
            self.bias = nn.Parameter(torch.zeros(scenes, out))
        else:
            layers = [linear(width, out) for _ in range(scenes)]
            self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
            self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def values(self) -> tuple[Tensor, Tensor]:
        """Weights [S, out, width] and biases [S, out] of the scenes' layers."""
        if self.common is None:
            return self.weight, self.bias
        return self.weight * self.common.weight, self.bias + self.common.bias

    def forward(self, x: Tensor, scene: Tensor) -> Tensor:
        """[N, out] of x [N, width] by the scene of each row, int64[N], or of all rows, int64[1]."""
        weight, bias = self.values()
        return picked(x, weight, scene) + bias[scene]


def picked(x: Tensor, weight: Tensor, scene: Tensor) -> Tensor:
    """x [N, width] times the transposed weight [S, out, width] of its scene: int64[N], or int64[1], one for all rows.

    One scene: its weights are gathered once. Several: all scenes' products are computed as one and each row keeps its
    own. Gathering the weights a row instead would copy [N, out, width].
    """
    if scene.shape[0] == 1:
        return x @ weight[scene].squeeze(0).T
    every = torch.reshape(x @ weight.flatten(0, 1).T, (-1, *weight.shape[:2]))  # [N, S, out]
    mine: Tensor = every[torch.arange(x.shape[0]), scene]
    return mine


@dataclass(frozen=True, slots=True)
class Read:
    """What the networks read of a batch: B requests, M candidates."""

    once: Tensor
    """[B, Wo]: user, context and histories."""
    each: Tensor
    """[M, We]: the candidates."""
    request: Tensor
    """int64[M]"""
    scene: Tensor
    """int64[B]: which scene's network is a request's."""
    mine: Tensor
    """int64[M], or [1] for all: which is a candidate's."""


class Mtl(Network):
    """Logit of each candidate."""

    network_of: Tensor

    def __init__(self, config: MtlConfig, schema: FeatureSchema) -> None:
        """ConfigError unless `scene` is a context field of one id."""
        super().__init__(
            schema,
            config.embedding,
            config.embedding_std,
            tables=config.tables,
            dropped=config.dropped_fields,
        )
        self.config = config
        field = next((each for each in schema.context.id_fields if each.name == config.scene), None)
        if field is None or field.width != 1:
            known = [each.name for each in schema.context.id_fields if each.width == 1]
            raise ConfigError(f"model.scene: {config.scene!r} is no context field of one id, known: {known}")
        self.column = schema.context.columns_of(field.name).start
        scenes = min(config.max_scenes, max(1, field.size - FIRST_KNOWN + 1))
        own = torch.arange(field.size) - (FIRST_KNOWN - 1)
        self.register_buffer("network_of", own.where((own > 0) & (own < scenes), 0), persistent=False)
        widths = [self.request_width + self.history_width + self.ad.dimension, *config.shared, *config.hidden]
        shared = len(config.shared)
        self.shared = nn.ModuleList(linear(a, b) for a, b in pairwise(widths[: shared + 1]))
        self.scenes = self.networks(scenes, widths[shared])
        self.activations = nn.ModuleList(Activation(config.activation, units) for units in widths[1:])
        self.dropout = nn.Dropout(config.dropout)
        if config.position_bias:
            self.learn_positions()

    def networks(self, scenes: int, width: int) -> nn.ModuleList:
        """Layers of one network a scene, from inputs of this width to a logit."""
        widths = pairwise([width, *self.config.hidden, 1])
        return nn.ModuleList(SceneLinear(scenes, a, b, self.config.star) for a, b in widths)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        read = self.read(batch)
        return self.biased(self.logits(read, self.bottom(read), self.scenes, self.own_activations), batch)

    @property
    def own_activations(self) -> nn.ModuleList:
        """Those of the scenes' networks, without those of the shared layers."""
        return self.activations[len(self.shared) :]

    def read(self, batch: Batch) -> Read:
        """The batch's features as vectors, and its scenes."""
        scene = self.network_of[batch.context[:, self.column]]  # [B]
        once = torch.cat([self.of_request(batch), *self.of_histories(batch.histories)], dim=-1)
        return Read(once, self.of_ads(batch), batch.request, scene, spread(scene, batch.request))

    def bottom(self, read: Read) -> Tensor | None:
        """What the shared layers make of it, [M, h]; None without any."""
        if not len(self.shared):
            return None
        x = first(self.shared[0], read)
        for layer, activation in zip(self.shared[1:], self.activations, strict=False):
            x = layer(self.dropout(activation(x)))
        shared: Tensor = self.dropout(self.activations[len(self.shared) - 1](x))
        return shared

    def logits(
        self, read: Read, bottom: Tensor | None, scenes: nn.ModuleList, activations: Iterable[nn.Module]
    ) -> Tensor:
        """Logits [M] of the scenes' networks `scenes`, over the shared layers' outcome where there is one."""
        x = first(scenes[0], read) if bottom is None else scenes[0](bottom, read.mine)
        for layer, activation in zip(scenes[1:], activations, strict=True):
            x = layer(self.dropout(activation(x)), read.mine)
        found: Tensor = x.squeeze(-1)
        return found


def first(layer: nn.Module, read: Read) -> Tensor:
    """The first layer [M, h] of [once[request], each], the part for `once` computed once a request."""
    if not isinstance(layer, SceneLinear):
        return grouped(layer, read.once, read.each, read.request)
    weight, bias = layer.values()
    for_once, for_each = torch.split(weight, [read.once.shape[-1], read.each.shape[-1]], dim=-1)
    once = picked(read.once, for_once, read.scene) + bias[read.scene]
    return spread(once, read.request) + picked(read.each, for_each, read.mine)
