"""Step of a recipe -> what it does."""

from collections.abc import Callable
from typing import Any

from models.compression.factorise import factorise
from models.compression.fine_tune import fine_tune
from models.compression.narrow_tables import narrow_tables
from models.compression.prune import prune
from models.compression.recipe import (
    Cut,
    Factorise,
    FineTune,
    Hash,
    MultiHash,
    NarrowTables,
    Prune,
    QuotientRemainder,
    SelectFields,
    Step,
    Values,
)
from models.compression.select_fields import select_fields
from models.compression.share_rows import share_rows
from models.compression.subject import Material, Subject
from models.compression.values import values

STEPS: dict[type[Step], Callable[[Any, Subject, Material], Subject]] = {
    FineTune: fine_tune,
    Factorise: factorise,
    Prune: prune,
    Values: values,
    Cut: share_rows,
    Hash: share_rows,
    MultiHash: share_rows,
    QuotientRemainder: share_rows,
    NarrowTables: narrow_tables,
    SelectFields: select_fields,
}


def take(step: Step, subject: Subject, material: Material) -> Subject:
    """The network after one step. CompressionError when the step does not fit it."""
    return STEPS[type(step)](step, subject, material)
