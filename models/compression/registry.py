"""Step of a recipe -> what it does."""

from collections.abc import Callable
from typing import Any

from models.compression.factorise import factorise
from models.compression.fine_tune import fine_tune
from models.compression.prune import prune
from models.compression.recipe import Factorise, FineTune, Prune, Step, Values
from models.compression.subject import Material, Subject
from models.compression.values import values

STEPS: dict[type[Step], Callable[[Any, Subject, Material], Subject]] = {
    FineTune: fine_tune,
    Factorise: factorise,
    Prune: prune,
    Values: values,
}


def take(step: Step, subject: Subject, material: Material) -> Subject:
    """The network after one step. CompressionError when the step does not fit it."""
    return STEPS[type(step)](step, subject, material)
