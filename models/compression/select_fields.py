"""Fields that are worth little leave a network: neither looked up nor stored any more.

The smaller network's weights are those of the larger one without what reads the dropped fields. Which those are is not
written down for each kind of network, it is measured: with a field's vectors multiplied by 0, they are what has no
gradient any more. The result must then score as the larger network with those fields silenced, or it is refused.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from bundle.schema import FIRST_KNOWN, FeatureSchema, Side
from models.checkpoint import write_json
from models.compression.carrying import carried
from models.compression.gates import gated, read_fields, silenced, worths
from models.compression.recipe import SelectFields
from models.compression.subject import CompressionError, Material, Subject
from models.data.batches import Batch
from models.networks.attention import ActivationUnit
from models.networks.config import EmbeddedConfig, NetworkConfig
from models.networks.layers import full_name, places, require_droppable, table_of
from models.networks.network import Network
from models.networks.registry import build
from models.networks.related import RelatedMtl

ALIKE = 1e-4
"""How far a logit may be from that of the larger network with silent fields."""


def select_fields(step: SelectFields, subject: Subject, material: Material) -> Subject:
    """Leaves fields.json, what each field is worth, in the step's folder. The worthiest of the ad's fields and of each
    history's always stay. CompressionError when nothing would leave."""
    fields = read_fields(subject.network)
    if step.keep is not None and step.keep >= len(fields):
        raise CompressionError(f"step select_fields: keep is {step.keep}, the network reads {len(fields)} fields")
    found = worths(subject.network, material.data, step, material.seed, progress=material.progress)
    write_json(material.folder / "fields.json", found)
    ranked = list(found)
    kept = ranked[: step.keep] if step.keep else [name for name in ranked if found[name] >= (step.threshold or 0)]
    for side in ["ad", *(history.name for history in subject.network.schema.histories)]:
        own = [name for name in ranked if name.partition(".")[0] == side]
        kept += own[:1] if own and own[0] not in kept else []
    if not (leaving := tuple(name for name in fields if name not in kept)):
        lowest = found[ranked[-1]]
        raise CompressionError(
            f"step select_fields: all fields are at {lowest:.3f} or more, threshold is {step.threshold}"
        )
    changed = lacking(subject, leaving)
    return subject.rebuilt(changed, without(subject.network, changed, set(leaving)))


def lacking(subject: Subject, leaving: Sequence[str]) -> NetworkConfig:
    """The configuration without some more fields, and without the tables that were theirs alone."""
    model, schema = subject.embedded, subject.network.schema
    dropped = (*model.dropped_fields, *leaving)
    read = {table_of(field) for place, field in places(schema) if full_name(place, field.name) not in dropped}
    tables = {name: each for name, each in model.tables.items() if name in read}
    return subject.changed(dropped_fields=dropped, tables=tables)


def without(old: Network, model: NetworkConfig, leaving: set[str]) -> dict[str, Tensor]:
    """The weights of `old` for `model`, which lacks some of its fields. CompressionError when they cannot be told."""
    assert isinstance(model, EmbeddedConfig)
    require_droppable(old.schema, model.dropped_fields)
    new = build(model, old.schema).eval()
    state, before = carried(old, new), old.state_dict()
    differing = [n for n in state if n in before and state[n].shape != before[n].shape and "arena." not in n]
    batch = probe(old.schema)
    every, silent = (_gradients(old, batch, differing, shut) for shut in (set(), leaving))
    for name in differing:
        value = before[name]
        for axis, size in enumerate(state[name].shape):
            if size == value.shape[axis]:
                continue
            kept = torch.nonzero((_along(silent[name], axis) > 0) | (_along(every[name], axis) == 0)).flatten()
            if len(kept) != size:
                raise CompressionError(
                    f"step select_fields: {name} reads {value.shape[axis]} values, {len(kept)} of them without the "
                    f"dropped fields, {size} were expected"
                )
            value = value.index_select(axis, kept)
        state[name] = value
    new.load_state_dict(state)
    _keep_softmax(old, new)
    with torch.no_grad(), gated(old, silenced(leaving)):
        wanted = old(batch)
    with torch.no_grad():
        gap = float((new(batch) - wanted).abs().max())
    if not gap <= ALIKE * max(1.0, float(wanted.abs().max())):
        raise CompressionError(f"step select_fields: a logit is off by {gap:.3g} from the network with silent fields")
    return new.state_dict()


def _gradients(network: Network, batch: Batch, names: list[str], shut: set[str]) -> dict[str, Tensor]:
    """|gradient| of some parameters with some fields silent, in double precision: only what is not read has none."""
    own = copy.deepcopy(network.eval()).double().requires_grad_(True)
    parameters = dict(own.named_parameters())
    labels = torch.rand(len(batch.labels), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    further = {own.related.label: labels} if isinstance(own, RelatedMtl) else {}
    with gated(own, silenced(shut)):
        torch.autograd.backward(own.loss(replace(batch, labels=labels, further=further)))
    found = {name: parameters[name].grad for name in names}
    return {name: torch.zeros_like(parameters[name]) if g is None else g.abs() for name, g in found.items()}


def _along(value: Tensor, axis: int) -> Tensor:
    """Sums over all axes but one."""
    return value.movedim(axis, 0).flatten(1).sum(1) if value.dim() > 1 else value


def _keep_softmax(old: Network, new: Network) -> None:
    """Softmax attention divides scores by the root of a behaviour's width, which is another one now."""
    earlier = dict(old.named_modules())
    with torch.no_grad():
        for name, unit in new.named_modules():
            before = earlier.get(name)
            if isinstance(unit, ActivationUnit) and isinstance(before, ActivationUnit) and unit.mode == "softmax":
                factor = math.sqrt(unit.width / before.width)
                unit.out.weight.mul_(factor)
                unit.out.bias.mul_(factor)


def probe(schema: FeatureSchema, requests: int = 16, candidates: int = 8, behaviours: int = 5) -> Batch:
    """Requests of random known ids in all places."""
    random = np.random.default_rng(1)

    def ids(side: Side, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        columns = [random.integers(min(FIRST_KNOWN, f.size - 1), f.size, (*shape, f.width)) for f in side.id_fields]
        return np.concatenate([np.zeros((*shape, 0), np.int64), *columns], axis=-1)

    def numbers(side: Side, rows: int) -> Tensor:
        return torch.from_numpy(random.normal(size=(rows, side.number_columns)).astype(np.float32))

    total = requests * candidates
    histories = {
        h.name: torch.from_numpy(ids(schema.ad, requests, behaviours)[..., schema.history_columns(h)])
        for h in schema.histories
    }
    return Batch(
        user=torch.from_numpy(ids(schema.user, requests)),
        user_numbers=numbers(schema.user, requests),
        context=torch.from_numpy(ids(schema.context, requests)),
        context_numbers=numbers(schema.context, requests),
        histories=histories,
        ads=torch.from_numpy(ids(schema.ad, total)),
        ad_numbers=numbers(schema.ad, total),
        request=torch.from_numpy(np.repeat(np.arange(requests), candidates)),
        labels=torch.zeros(total),
        positions=torch.zeros(total, dtype=torch.int64),
        rows=np.zeros(total, np.int32),
        users=np.repeat(np.arange(requests), candidates),
        truth=None,
    )
