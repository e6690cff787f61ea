"""Fewer columns of a table: W [n, d] ≈ (W V) Vᵀ, V the r largest eigenvectors of Wᵀ F W, F how often each row is read.

That is the truncated singular value decomposition of F^½ W, the best approximation of rank r on what is looked up
(Eckart and Young 1936). Nothing is subtracted first, as a principal component analysis would: padding must stay zero.
"""

import torch
from torch import Tensor

from models.compression.carrying import carried
from models.compression.recipe import NarrowTables
from models.compression.subject import CompressionError, Material, Subject
from models.networks.config import TableConfig
from models.networks.layers import Arena
from models.networks.network import lookups
from models.networks.registry import build


def narrow_tables(step: NarrowTables, subject: Subject, material: Material) -> Subject:
    """Rows and expansion of every table that becomes smaller; one that was named and would not is refused."""
    model, old = subject.embedded, subject.network
    if strange := [name for name in step.tables if name not in old.arena.fields]:
        known = ", ".join(old.arena.fields)
        raise CompressionError(f"step narrow_tables: there is no table {strange[0]!r}, known: {known}")
    if step.dimension is not None and step.dimension > model.embedding:
        raise CompressionError(
            f"step narrow_tables: dimension is {step.dimension}, the embeddings have {model.embedding}"
        )
    counts = lookups(old, material.data)
    smallest = min(field.size for field in old.arena.fields.values())
    tables, parts = dict(model.tables), {}
    for name in step.tables or old.arena.fields:
        config = tables.get(name, TableConfig())
        if config.dimension is not None or (config.method == "quotient_remainder" and config.combine == "product"):
            if step.tables:
                said = "a product of rows" if config.dimension is None else f"of dimension {config.dimension} already"
                raise CompressionError(f"step narrow_tables: table {name!r} is {said}")
            continue
        rows, weights = stored_rows(old.arena, name, counts[name] if step.weighted else torch.ones_like(counts[name]))
        values, vectors = decomposed(rows, weights)
        r = rank(step, values, smallest / old.arena.fields[name].size, model.embedding)
        if r * (len(rows) + model.embedding) >= rows.numel() and not (step.tables and r == model.embedding):
            if step.tables:
                raise CompressionError(
                    f"step narrow_tables: table {name!r} of {len(rows)} x {model.embedding} would not be smaller with "
                    f"dimension {r} and its expansion"
                )
            continue
        basis = vectors[:, :r]
        tables[name] = config.model_copy(update={"dimension": r})
        parts[name] = rows @ basis, basis.T
    if not parts:
        raise CompressionError(f"step narrow_tables: none of {len(old.arena.fields)} tables would be smaller")
    changed = subject.changed(tables=tables)
    new = build(changed, old.schema)
    new.load_state_dict(carried(old, new))
    with torch.no_grad():
        for name, (rows, expansion) in parts.items():
            table = new.arena.apart(name)
            assert table is not None
            assert table.expansion is not None
            table.weight.copy_(rows)
            table.expansion.copy_(expansion)
    return subject.rebuilt(changed, new.state_dict())


def stored_rows(arena: Arena, name: str, lookups: Tensor) -> tuple[Tensor, Tensor]:
    """Padding, unknown and the rows that a table stores, float64[n, d], and how often each is read, float64[n]."""
    table = arena.apart(name)
    if table is None:
        start, size = arena.starts[name], len(lookups)
        rows = torch.cat([arena.weight[:1], arena.weight[start + 1 : start + size]])
        return rows.detach().double(), lookups.double()
    read = table.rows(torch.arange(table.size))
    weights = lookups.double().unsqueeze(1).expand(read.shape)
    counted = torch.zeros(len(table.weight), dtype=torch.float64).index_add(0, read.flatten(), weights.flatten())
    return table.weight.detach().double(), counted


def decomposed(rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Squares kept by each direction, largest first, [d], and the directions, [d, d]."""
    values, vectors = torch.linalg.eigh(rows.T @ (weights.unsqueeze(1) * rows))
    return values.flip(0).clamp(min=0), vectors.flip(1)


def rank(step: NarrowTables, values: Tensor, popularity: float, dimension: int) -> int:
    """Columns to keep of a table; `popularity`: ids of the smallest table ÷ its own."""
    if step.dimension is not None:
        return step.dimension
    if step.kept is not None:
        share = values.cumsum(0) / values.sum().clamp(min=1e-300)
        return min(dimension, int((share < step.kept).sum().item()) + 1)
    assert step.popularity is not None
    return max(1, round(dimension * float(popularity**step.popularity)))
