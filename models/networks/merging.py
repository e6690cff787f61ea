"""Expansions of narrow tables merged into the layer that reads them.

    W (z E) = (W Eᵀ) z: a field of r stored values enters a first layer of h units by h·r products instead of r·d + h·d

Where nothing stands between: user, context and ad of DIN, and of GwEN and the deep part of Wide & Deep their histories'
means as well. Products of whole vectors need the network's dimension: DIN's q ⊙ k makes it once a candidate and once a
behaviour. Factorisation machines, PNN, DeepFM, FNN, COLD, MTL, DICM and the towers of DQM and DSSM expand every lookup.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from models.networks.din import Din
from models.networks.encoder import SideEncoder
from models.networks.gwen import Gwen
from models.networks.layers import Arena, key
from models.networks.low_rank import entry
from models.networks.network import Network
from models.networks.wide_deep import WideDeep

Kind = TypeVar("Kind", bound=Network)


def merged(network: Kind) -> Kind:
    """A copy that computes the same logits with the expansions in the first layer of its network on top; the network
    itself where there is nothing to merge."""
    if not isinstance(network, Din | Gwen | WideDeep):
        return network
    if all(each.expansion is None for each in network.arena.compressed()):
        return network
    with torch.no_grad():
        found = copy.deepcopy(network)
        histories = [found.behaviours[key(h)] for h in found.schema.histories]
        sides: list[nn.Module] = [found.user, found.context]
        sides += [found.ad] if isinstance(found, Din) else [*histories, found.ad]
        encoders = [each for each in sides if isinstance(each, SideEncoder)]
        widths = [each.dimension for each in encoders]
        layer = entry(found.mlp.layers[0])
        weight = layer.weight.detach()
        parts = torch.split(weight, [*widths, weight.shape[1] - sum(widths)], dim=1)
        read = [_narrowed(found.arena, each, part) for each, part in zip(encoders, parts[:-1], strict=True)]
        layer.weight = nn.Parameter(torch.cat([*read, parts[-1]], dim=1))
        layer.in_features = layer.weight.shape[1]
    return found


def _narrowed(arena: Arena, encoder: SideEncoder, weight: Tensor) -> Tensor:
    """The weight [h, dimension] for an encoder that is made to leave its fields narrow."""
    pieces = []
    for part, column in zip(
        torch.split(weight, [*encoder.parts, encoder.numbers], dim=1), [*encoder.columns, None], strict=True
    ):
        table = arena.apart(column.table) if column is not None else None
        pieces.append(part if table is None or table.expansion is None else part @ table.expansion.detach().T)
    encoder.narrow = True
    encoder.parts = [each.shape[1] for each in pieces[:-1]]
    return torch.cat(pieces, dim=1)
