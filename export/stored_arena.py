"""Embedding tables as a graph has them: each with a row of zeros of its own before it, so that an id's row is one
addition, padding included; and each in what the network stores it in.

    fp32   Gather(table, ids)
    fp16   Gather(halves, ids) -> Cast
    int8   Gather(codes, ids) -> Cast -> Mul Gather(scales, ids)
    int4   Gather(bytes, ids) -> Cast -> two halves of each byte -> Concat -> Sub 8 -> Mul Gather(scales, ids)

Codes and scales are those that models/networks/rounding.py computes with (bundle/rounding.py).
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.precision import Stored
from bundle.rounding import pack, quantise
from models.networks.layers import Arena
from models.networks.network import Network


class StoredArena(Arena):
    """The tables of another arena. Those that are stored alike are one array."""

    def __init__(self, arena: Arena) -> None:
        nn.Module.__init__(self)
        self.dimension, self.shared, self.fields = arena.dimension, arena.shared, arena.fields
        self.values = arena.values
        self.starts: dict[str, int] = {}
        """By table: where it begins in the array of its kind."""
        weight = arena.weight.detach()
        padding = weight.new_zeros(1, arena.dimension)
        forms: list[Stored] = list(dict.fromkeys(self.values.values())) or ["fp32"]
        for stored in forms:
            rows, pieces = 0, [] if arena.starts else [padding]
            for table in (name for name, each in self.values.items() if each == stored):
                start, size = arena.starts[table], arena.fields[table].size
                self.starts[table] = rows
                pieces += [padding, weight[start + 1 : start + size]]
                rows += size
            for name, array in arrays(torch.cat(pieces), stored).items():
                self.register_buffer(name, array)

    def forward(self, ids: Tensor, _: Tensor, tables: tuple[str, ...]) -> Tensor:
        """Embeddings [..., columns, d] of ids [..., columns] of these tables."""
        forms = [self.values[name] for name in tables] or [next(iter(self.values.values()), "fp32")]
        starts = torch.tensor([self.starts[name] for name in tables], dtype=torch.int64)
        if len(set(forms)) == 1:
            return self._read(ids + starts, forms[0])
        found: list[Tensor] = [ids] * len(forms)
        for stored in dict.fromkeys(forms):
            columns = [i for i, each in enumerate(forms) if each == stored]
            some = torch.tensor(columns)
            read = self._read(ids.index_select(-1, some) + starts[some], stored)
            for place, column in enumerate(columns):
                found[column] = read[..., place, :]
        return torch.stack(found, dim=-2)

    def _read(self, rows: Tensor, stored: Stored) -> Tensor:
        """Embeddings [..., d] of rows [...] of one array."""
        found = F.embedding(rows, self.get_buffer(stored))
        if stored == "int4":
            both = found.float()  # in floats bytes are taken apart as fast as by BitShift, which not every provider has
            high = torch.floor(both * (1 / 16))
            codes = torch.cat([both - 16 * high, high], dim=-1) - 8
            if self.dimension % 2:
                codes = codes[..., :-1]
            return codes * F.embedding(rows, self.int4_scales)
        if stored == "int8":
            return found.float() * F.embedding(rows, self.int8_scales)
        return found.float()

    int4_scales: Tensor
    int8_scales: Tensor


def arrays(weight: Tensor, stored: Stored) -> dict[str, Tensor]:
    """The arrays that hold rows float32[rows, d], by name."""
    if stored == "fp32":
        return {stored: weight.clone()}
    if stored == "fp16":
        return {stored: weight.half()}
    codes, scales = quantise(weight.numpy(), stored)
    kept = pack(codes) if stored == "int4" else codes
    return {stored: torch.from_numpy(kept), f"{stored}_scales": torch.from_numpy(scales).unsqueeze(-1)}


def stored(network: Network) -> Network:
    """The network with its tables as they are stored. It shares nothing with the one that is given, nor is changed."""
    return copy.deepcopy(network, {id(network.arena): StoredArena(network.arena)})


def given(network: Network) -> dict[str, Stored]:
    """The tables that the network stores in less than fp32, and in what; for the manifest."""
    return {name: each for name, each in network.arena.values.items() if each != "fp32"}
