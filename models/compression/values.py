"""Embedding tables in fewer bytes a number: fp16, or int8 or int4 in steps of a scale that each row has for itself."""

import torch

from bundle.precision import Stored
from bundle.rounding import row_bytes
from models.compression.recipe import Values
from models.compression.subject import CompressionError, Material, Subject
from models.networks.config import TableConfig
from models.networks.layers import Arena, module_name
from models.networks.rounding import rounded

LARGEST_HALF = torch.finfo(torch.float16).max


def values(step: Values, subject: Subject, _: Material) -> Subject:
    """Rounds the weights, and says so in the configuration: from here on the network rounds what it reads, so that what
    is trained behind this step is trained as it will be served."""
    arena, model = subject.network.arena, subject.embedded
    asked = dict.fromkeys(arena.values, step.tables) if isinstance(step.tables, str) else step.tables
    if strange := sorted(asked.keys() - arena.values.keys()):
        raise CompressionError(f"step values: there are no tables {strange}, known: {', '.join(sorted(arena.values))}")
    state = {name: value.clone() for name, value in subject.network.state_dict().items()}
    for name, stored in asked.items():
        rows = _rows(arena, name, state)
        rows.copy_(_kept(name, rows, stored))
    tables = {name: model.tables.get(name, TableConfig()).model_copy(update={"values": asked[name]}) for name in asked}
    return subject.rebuilt(subject.changed(tables={**model.tables, **tables}), state)


def _rows(arena: Arena, table: str, state: dict[str, torch.Tensor]) -> torch.Tensor:
    """Those of a table in a network's state, without the padding's."""
    if arena.apart(table) is not None:
        return state[f"arena.tables.{module_name(table)}.weight"][1:]
    first = arena.starts[table] + 1
    return state["arena.weight"][first : first + arena.fields[table].size - 1]


def _kept(table: str, weight: torch.Tensor, stored: Stored) -> torch.Tensor:
    if not torch.isfinite(weight).all():
        raise CompressionError(f"step values: table {table!r} holds values that are not finite")
    dimension = weight.shape[1]
    if (needed := row_bytes(stored, dimension)) > (before := row_bytes("fp32", dimension)):
        raise CompressionError(
            f"step values: a row of {dimension} in table {table!r} takes {needed} bytes in {stored}, {before} in fp32"
        )
    if stored == "fp16" and len(weight) and (largest := float(weight.abs().max())) > LARGEST_HALF:
        raise CompressionError(f"step values: table {table!r} holds {largest:.3g}, fp16 ends at {LARGEST_HALF:g}")
    return rounded(weight, stored)
