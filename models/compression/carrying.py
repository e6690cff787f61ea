"""The weights of a network handed to another one of the same kind with other tables."""

import torch
from torch import Tensor

from models.networks.layers import Arena
from models.networks.network import Network


def carried(old: Network, new: Network) -> dict[str, Tensor]:
    """The state of `new` with all that `old` has in the same shape, and with the rows of all tables that both have in
    their arenas, wherever they begin. What else differs stays as it was in `new`."""
    before, after = old.state_dict(), {name: value.clone() for name, value in new.state_dict().items()}
    arenas = {f"{name}.weight": module for name, module in new.named_modules() if isinstance(module, Arena)}
    earlier = {f"{name}.weight": module for name, module in old.named_modules() if isinstance(module, Arena)}
    for name, value in after.items():
        if name in arenas:
            for table, start in arenas[name].starts.items():
                rows, was = arenas[name].fields[table].size - 1, earlier[name].starts[table]
                value[start + 1 : start + 1 + rows] = before[name][was + 1 : was + 1 + rows]
        elif name in before and before[name].shape == value.shape:
            value.copy_(before[name])
    return after


def values_of(arena: Arena, table: str) -> Tensor:
    """The rows [size, r] of a table's ids, before an expansion."""
    apart = arena.apart(table)
    with torch.no_grad():
        if apart is not None:
            return apart.narrow(torch.arange(apart.size))
        start, size = arena.starts[table], arena.fields[table].size
        return torch.cat([arena.weight[:1], arena.weight[start + 1 : start + size]]).clone()
