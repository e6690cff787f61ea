"""Fewer rows of a table: a cut, a hash, several hashes, quotient and remainder (models/networks/tables.py)."""

import math

import torch

from bundle.schema import FIRST_KNOWN
from models.compression.carrying import carried, values_of
from models.compression.recipe import Cut, MultiHash, QuotientRemainder, RowStep
from models.compression.row_fitting import fit_rows
from models.compression.subject import CompressionError, Material, Subject
from models.networks.config import TableConfig
from models.networks.network import lookups
from models.networks.registry import build


def share_rows(step: RowStep, subject: Subject, material: Material) -> Subject:
    """Rows start as near as they come to what they replace (models/compression/row_fitting.py)."""
    what = f"step {step.step}"
    model, old = subject.embedded, subject.network
    counts = lookups(old, material.data)
    tables = dict(model.tables)
    for name in step.tables:
        if name not in old.arena.fields:
            raise CompressionError(f"{what}: there is no table {name!r}, known: {', '.join(old.arena.fields)}")
        config = tables.get(name, TableConfig())
        if config.method is not None:
            raise CompressionError(f"{what}: rows of table {name!r} are shared already, by {config.method}")
        known = old.arena.fields[name].size - FIRST_KNOWN
        rows = rows_of(step, counts[name], name)
        if not 0 < rows <= known:
            raise CompressionError(f"{what}: table {name!r} has {known} known ids, {rows} rows were asked for")
        changed: dict[str, object] = {"method": step.step, "rows": rows}
        if isinstance(step, MultiHash):
            changed["hashes"] = step.hashes
        if isinstance(step, QuotientRemainder):
            changed["combine"] = step.combine
        tables[name] = config.model_copy(update=changed)
    changed_model = subject.changed(tables=tables)
    new = build(changed_model, old.schema)
    new.load_state_dict(carried(old, new))
    with torch.no_grad():
        for name in step.tables:
            table = new.arena.apart(name)
            assert table is not None
            table.prepare(counts[name])
            table.weight.copy_(fit_rows(table, values_of(old.arena, name), counts[name]))
    return subject.rebuilt(changed_model, new.state_dict())


def rows_of(step: RowStep, lookups: torch.Tensor, name: str) -> int:
    """TableConfig.rows of a table whose ids are looked up so often, int64[size]. CompressionError when two tables of
    quotients and remainders cannot be so small."""
    known = len(lookups) - FIRST_KNOWN
    if isinstance(step, Cut) and step.min_count is not None:
        return int((lookups[FIRST_KNOWN:] >= step.min_count).sum())
    if step.ratio is None:
        assert step.rows is not None
        return step.rows
    total = known / step.ratio
    if not isinstance(step, QuotientRemainder):
        return max(1, round(total))
    # m remainders and n/m quotients, m + n/m = total: the larger root has the fewer ids that share a remainder
    if (inside := total**2 - 4 * known) < 0:
        least = math.ceil(2 * known**0.5)
        raise CompressionError(
            f"step {step.step}: table {name!r} has {known} known ids and needs {least} rows at least, a ratio "
            f"of {step.ratio:g} leaves {total:.0f}"
        )
    return max(1, int((total + math.sqrt(inside)) / 2))
