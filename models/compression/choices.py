"""What a search may combine: for each part of a network a few forms, of which one is chosen; chosen forms -> a recipe.

Structure first, then fine-tuning with what has become of it, then the tables' numbers, which training would undo.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from models.compression.recipe import Recipe
from models.compression.subject import Subject
from models.networks.config import DeepConfig, DinConfig

Forms = dict[str, tuple[str, ...]]
"""Part -> its forms by name; the first is as it is."""
WHOLE = "whole"
TEACHERS, RATES = (0.0, 0.3, 1.0), (1e-4, 3e-4, 1e-3)


@dataclass(frozen=True, slots=True)
class Settings:
    """Of fine-tuning."""

    teacher: float = 0.3
    learning_rate: float = 3e-4
    tables: bool = False
    """What was trained for one epoch may be harmed by a second one (docs/compression.md)."""


USUAL = Settings()
"""What every survivor is fine-tuned with first."""
OTHERS = tuple(
    each
    for tables in (False, True)
    for rate in RATES
    for teacher in TEACHERS
    if (each := Settings(teacher, rate, tables)) != USUAL
)


def forms_of(subject: Subject) -> Forms:
    """What can be chosen for a network."""
    model = subject.embedded
    forms: Forms = {}
    if isinstance(model, DinConfig):
        units = [(max(2, a * n // 20), max(1, b * n // 20)) for a, b in [model.attention_hidden] for n in (10, 4, 3, 2)]
        forms["attention"] = (WHOLE, *dict.fromkeys(f"{a}-{b}" for a, b in units))
    if isinstance(model, DeepConfig):
        forms["hidden"] = (WHOLE, *("-".join(str(max(1, units // n)) for units in model.hidden) for n in (2, 4)))
        forms["rank"] = (WHOLE, "2x", "4x", "8x")
    forms["tables"] = ("fp32", "int8", "int4")
    return forms


def recipe_of(chosen: Mapping[str, str], name: str, settings: Settings | None = None) -> Recipe:
    """The recipe of chosen forms. `settings`: of fine-tuning; None: without, as it is estimated."""
    steps: list[dict[str, Any]] = []
    pruned: dict[str, list[int]] = {}
    if chosen.get("attention", WHOLE) != WHOLE:
        pruned["attention_hidden"] = _numbers(chosen["attention"])
    if chosen.get("hidden", WHOLE) != WHOLE:
        pruned["hidden"] = _numbers(chosen["hidden"])
    if pruned:
        steps.append({"step": "prune"} | pruned)
    if chosen.get("rank", WHOLE) != WHOLE:
        steps.append({"step": "factorise", "method": "afm", "layers": {"mlp.layers.*": chosen["rank"]}})
    if settings is not None:
        steps.append({"step": "fine_tune"} | asdict(settings))
    if chosen["tables"] != "fp32":
        steps.append({"step": "values", "tables": chosen["tables"]})
    return Recipe.model_validate({"name": name, "steps": steps})


def is_whole(chosen: Mapping[str, str]) -> bool:
    """Whether everything stays as it is."""
    return all(form in (WHOLE, "fp32") for form in chosen.values())


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split("-")]
