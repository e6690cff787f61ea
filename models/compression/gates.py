"""A gate a field, learnt beside a network that stays as it is: what is each field worth to it?

    min over δ of  E_z [log loss with z_f · (vectors of field f)] + strength · Σ_f δ_f
    z_f = σ((log δ/(1−δ) + log u/(1−u)) / temperature),  u uniform, a draw a row

Feature selection by variational dropout (FSCD, Ma et al., arXiv 2105.07706, with one price for all fields) with the
concrete relaxation of Bernoulli variables (Maddison et al., arXiv 1611.00712). It is trained on the validation split:
on rows that it was trained on, a network looks as if it needed the ids that it has learnt by heart.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from models.compression.recipe import SelectFields
from models.data.batches import batches
from models.data.prepared import PreparedData
from models.networks.encoder import SideEncoder
from models.networks.layers import field_names
from models.networks.network import Network

OPEN = 2.2
"""Logit of a gate at first: open nine times of ten."""
BATCH = 1024


def read_fields(network: Network) -> list[str]:
    """SIDE.FIELD of all fields that the network looks up."""
    return [name for name in field_names(network.schema) if name not in network.arena.dropped]


@contextmanager
def gated(network: Network, gates: Callable[[int, list[str]], Tensor]) -> Iterator[None]:
    """While entered, the vectors of fields are multiplied by gates: of a number of rows and of fields, [rows, fields],
    or [1, fields]."""

    def hook(module: torch.nn.Module, _: tuple[Any, ...], output: Tensor) -> Tensor:
        assert isinstance(module, SideEncoder)
        if not module.columns:
            return output
        open_ = gates(output.shape[0], [each.field for each in module.columns])
        wide = open_.repeat_interleave(torch.tensor(module.parts), dim=1)
        wide = torch.cat([wide, wide.new_ones(len(wide), output.shape[-1] - wide.shape[1])], dim=1)  # numbers
        return output * wide.reshape(len(wide), *([1] * (output.dim() - 2)), wide.shape[1])

    handles = [each.register_forward_hook(hook) for each in network.modules() if isinstance(each, SideEncoder)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def silenced(dropped: set[str]) -> Callable[[int, list[str]], Tensor]:
    """Gates that are shut for some fields and open for all others."""
    return lambda _, fields: torch.tensor([[float(field not in dropped) for field in fields]])


def worths(network: Network, data: PreparedData, step: SelectFields, seed: int, *, progress: bool) -> dict[str, float]:
    """Field -> how often its gate is open in the end, the worthiest first."""
    fields = read_fields(network)
    place = {field: i for i, field in enumerate(fields)}
    logits = torch.full((len(fields),), OPEN, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=step.learning_rate)
    random = torch.Generator().manual_seed(seed)
    frozen = copy.deepcopy(network).eval().requires_grad_(False)

    def drawn(rows: int, some: list[str]) -> Tensor:
        u = torch.rand(rows, len(some), generator=random).clamp(1e-6, 1 - 1e-6)
        mine = logits[[place[field] for field in some]]
        return torch.sigmoid((mine + torch.logit(u)) / step.temperature)

    with gated(frozen, drawn):
        again = cycle(islice(batches(data, "valid", BATCH, seed), step.steps))
        for batch in tqdm(islice(again, step.steps), "gates", step.steps, disable=not progress):
            loss = frozen.loss(batch) + step.strength * torch.sigmoid(logits).sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    found = dict(zip(fields, torch.sigmoid(logits).tolist(), strict=True))
    return dict(sorted(found.items(), key=lambda each: -each[1]))
