"""Embedding tables as a graph has them: each with a row of zeros of its own before it, so that an id's row is one
addition, padding included; and each in what the network stores it in.

    fp32   Gather(table, ids)
    fp16   Gather(halves, ids) -> Cast
    int8   Gather(codes, ids) -> Cast -> Mul Gather(scales, ids)
    int4   Gather(bytes, ids) -> Cast -> two halves of each byte -> Concat -> Sub 8 -> Mul Gather(scales, ids)

Codes and scales are those that models/networks/rounding.py computes with (bundle/rounding.py).
"""

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.manifest import GraphSpec
from bundle.precision import Precision, Stored
from bundle.rounding import pack, quantise
from models.networks.layers import Arena, module_name
from models.networks.merging import merged
from models.networks.network import Network
from models.networks.tables import CompressedTable

Kind = TypeVar("Kind", bound=Network)


class StoredRows(nn.Module):
    """Rows of float32[rows, d] as they are stored."""

    codes: Tensor
    """fp32 and fp16: the numbers themselves."""

    def __init__(self, weight: Tensor, form: Stored) -> None:
        super().__init__()
        self.form, self.dimension = form, weight.shape[1]
        if form in ("int8", "int4"):
            codes, scales = quantise(weight.numpy(), form)
            self.register_buffer("codes", torch.from_numpy(pack(codes) if form == "int4" else codes))
            self.register_buffer("scales", torch.from_numpy(scales).unsqueeze(-1))
        else:
            self.register_buffer("codes", weight.half() if form == "fp16" else weight.clone())

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [..., d] of their numbers [...]."""
        found = F.embedding(rows, self.codes).float()
        if self.form == "int4":
            # In floats bytes are taken apart as fast as by BitShift, which not every provider has.
            high = torch.floor(found * (1 / 16))
            found = torch.cat([found - 16 * high, high], dim=-1) - 8
            if self.dimension % 2:
                found = found[..., :-1]
        if self.form in ("int4", "int8"):
            found = found * F.embedding(rows, self.get_buffer("scales"))
        return found


class StoredTable(CompressedTable):
    """A table of fewer rows or columns, its rows as they are stored."""

    def __init__(self, table: CompressedTable) -> None:
        nn.Module.__init__(self)
        self.name, self.size, self.config = table.name, table.size, table.config
        self.buckets, self.quotients, self.width = table.buckets, table.quotients, table.width
        self.held = StoredRows(table.weight.detach(), table.config.values)
        self.expansion = copy.deepcopy(table.expansion)
        self.register_buffer("remap", copy.deepcopy(table.remap))

    def stored(self, rows: Tensor) -> Tensor:
        """Rows [..., r] of their numbers [...]."""
        found: Tensor = self.held(rows)
        return found


class StoredArena(Arena):
    """The tables of another arena. Those of its array that are stored alike are one array."""

    def __init__(self, arena: Arena) -> None:
        nn.Module.__init__(self)
        self.dimension, self.shared, self.fields = arena.dimension, arena.shared, arena.fields
        self.values, self.dropped = arena.values, arena.dropped
        self.tables = nn.ModuleDict({module_name(each.name): StoredTable(each) for each in arena.compressed()})
        self.starts: dict[str, int] = {}
        """By table: where it begins in the array of its form."""
        self.forms = nn.ModuleDict()
        weight = arena.weight.detach()
        padding = weight.new_zeros(1, arena.dimension)
        forms: list[Stored] = list(dict.fromkeys(self.values[name] for name in arena.starts)) or ["fp32"]
        for form in forms:
            rows, pieces = 0, [] if arena.starts else [padding]
            for table, start in ((name, start) for name, start in arena.starts.items() if self.values[name] == form):
                size = arena.fields[table].size
                self.starts[table] = rows
                pieces += [padding, weight[start + 1 : start + size]]
                rows += size
            self.forms[form] = StoredRows(torch.cat(pieces), form)

    def forward(self, ids: Tensor, _: Tensor, tables: tuple[str, ...]) -> Tensor:
        """Embeddings [..., columns, d] of ids [..., columns] of these tables."""
        starts = torch.tensor([self.starts[name] for name in tables], dtype=torch.int64)
        columns: dict[str, list[int]] = {}
        for column, name in enumerate(tables):
            columns.setdefault(self.values[name], []).append(column)
        found: Tensor
        if len(columns) <= 1:
            found = self.forms[next(iter(columns or self.forms))](ids + starts)
            return found
        pieces: list[Tensor] = [ids] * len(tables)
        for form, chosen in columns.items():
            some = torch.tensor(chosen)
            found = self.forms[form](ids.index_select(-1, some) + starts[some])
            for place, column in enumerate(chosen):
                pieces[column] = found[..., place, :]
        return torch.stack(pieces, dim=-2)


def stored(network: Kind) -> Kind:
    """The network with its tables as they are stored, and their expansions in the layers that read them (merging.py).
    It shares nothing with the one that is given, nor is changed."""
    served = merged(network)
    return copy.deepcopy(served, {id(served.arena): StoredArena(served.arena)})


def given(network: Network) -> dict[str, Stored]:
    """The tables that the network stores in less than fp32, and in what; for the manifest."""
    return {name: each for name, each in network.arena.values.items() if each != "fp32"}


def with_given(graph: GraphSpec, network: Network) -> GraphSpec:
    """The graph with what it says of the tables that its network stores in fewer bytes."""
    return graph.model_copy(update={"precision": Precision(given=given(network))})
