"""COLD, a small network that pre-ranks by interactions (Wang et al., arXiv 2007.16122): between two towers, whose ads
meet the request in an inner product only, and the fine-ranker.

    r_1 … r_m   fields of user and context, and the mean behaviour h of each history: the same for all candidates
    a_1 … a_n   fields of the ad, and its own fields of a behaviour ⊙ h for each history: the cross features
    s^r = σ(V [r] + v)        s^a = σ(W [r] + U [a] + w)       one gate a field (squeeze and excitation)
    logit = network [s^r_1·r_1 … s^r_m·r_m, s^a_1·a_1 … s^a_n·a_n]

The gates say which fields are worth their time: train with all of them, read the mean gates
(`adrank evaluate --gates`), and name the fields to keep in `fields`. The paper's gates all read all fields; here those
of the request do not see the candidate, so that everything of the request, its part of the first layers included, is
computed once.
"""

import torch
from torch import Tensor

from bundle.schema import FeatureSchema, Side
from models.config import ConfigError
from models.data.batches import Batch
from models.networks.config import ColdConfig
from models.networks.encoder import SideEncoder
from models.networks.layers import Mlp, grouped, key, linear, spread
from models.networks.network import Network

Fields = list[tuple[str, int]]
"""Name and width of each field, in the order in which they stand in a vector."""


class Cold(Network):
    """Logit of each candidate."""

    once_columns: Tensor
    each_columns: Tensor
    once_gates: Tensor
    each_gates: Tensor

    def __init__(self, config: ColdConfig, schema: FeatureSchema) -> None:
        """ConfigError when `fields` names what is not there, or nothing of the ad."""
        super().__init__(
            schema,
            config.embedding,
            config.embedding_std,
            tables=config.tables,
            dropped=config.dropped_fields,
        )
        self.config = config
        d = self.arena.dimension
        histories = list(zip((h.name for h in schema.histories), self.behaviour_widths, strict=True))
        once = [*fields_of("user", schema.user, self.user, d), *fields_of("context", schema.context, self.context, d)]
        once += [(f"history.{name}", width) for name, width in histories]
        each = fields_of("ad", schema.ad, self.ad, d) + [(f"cross.{name}", width) for name, width in histories]
        known = [name for name, _ in once + each]
        if strange := [name for name in config.fields if name not in known]:
            raise ConfigError(f"model.fields: there are no fields {strange}, known: {', '.join(known)}")
        wanted = set(config.fields or known)
        if wanted.isdisjoint(name for name, _ in each):
            raise ConfigError(f"model.fields: {list(config.fields)} has nothing of the ad, all would score alike")
        self.names = [name for name in known if name in wanted]
        self.once_count = len(wanted.intersection(name for name, _ in once))
        for side, fields in (("once", once), ("each", each)):
            columns, gates = chosen(fields, wanted)
            self.register_buffer(f"{side}_columns", columns, persistent=False)
            self.register_buffer(f"{side}_gates", gates, persistent=False)
        once_width, each_width = len(self.once_columns), len(self.each_columns)
        self.once_gate = linear(once_width, self.once_count)
        self.each_gate = linear(once_width + each_width, len(self.names) - self.once_count)
        self.mlp = Mlp(once_width + each_width, config.hidden, 1, config.activation, config.dropout)
        if config.position_bias:
            self.learn_positions()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        once, each = self.vectors(batch)
        for_once, for_each = self.gates(once, each, batch.request)
        # A column each by index_select: indexing took 4.6 times as long (1,024 candidates, 128 columns: 445 and 97 us).
        gated_once = once * for_once.index_select(1, self.once_gates)
        gated_each = each * for_each.index_select(1, self.each_gates)
        return self.biased(self.mlp.grouped(gated_once, gated_each, batch.request).squeeze(-1), batch)

    def vectors(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The chosen fields of requests [B, Wo] and of candidates [M, We], without gates."""
        pooled = self.of_histories(batch.histories)
        crosses = [
            self.behaviours[key(h)](self.arena, batch.ads[:, self.schema.history_columns(h)])
            * spread(mean, batch.request)
            for h, mean in zip(self.schema.histories, pooled, strict=True)
        ]
        once = torch.cat([self.of_request(batch), *pooled], dim=-1)
        each = torch.cat([self.of_ads(batch), *crosses], dim=-1)
        if not self.config.fields:
            return once, each
        return once.index_select(1, self.once_columns), each.index_select(1, self.each_columns)

    def gates(self, once: Tensor, each: Tensor, request: Tensor) -> tuple[Tensor, Tensor]:
        """The gates of requests' fields [B, m] and of candidates' fields [M, n], all between 0 and 1."""
        for_each = grouped(self.each_gate, once, each, request)
        return torch.sigmoid(self.once_gate(once)), torch.sigmoid(for_each)

    def importance(self, batch: Batch) -> dict[str, float]:
        """The mean gate of each field over the impressions of a batch."""
        once, each = self.vectors(batch)
        for_once, for_each = self.gates(once, each, batch.request)
        means = torch.cat([for_once[batch.request].mean(0), for_each.mean(0)])
        return dict(zip(self.names, means.tolist(), strict=True))


def fields_of(prefix: str, side: Side, encoder: SideEncoder, dimension: int) -> Fields:
    """The fields of a side as its encoder lines them up: ids, then plain numbers."""
    ids = [(f"{prefix}.{each.name}", dimension) for each in encoder.columns]
    return ids + [(f"{prefix}.{field.name}", 1) for field in side.number_fields]


def chosen(fields: Fields, wanted: set[str]) -> tuple[Tensor, Tensor]:
    """Columns of the wanted fields, int64[W], and for each of them which of the wanted fields it is, int64[W]."""
    columns: list[int] = []
    gates: list[int] = []
    start = kept = 0
    for name, width in fields:
        if name in wanted:
            columns += range(start, start + width)
            gates += [kept] * width
            kept += 1
        start += width
    return torch.tensor(columns, dtype=torch.int64), torch.tensor(gates, dtype=torch.int64)
