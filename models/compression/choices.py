"""What a search may combine: for each part of a network a few forms, of which one is chosen; chosen forms -> a recipe.

Structure first, then fine-tuning with what has become of it, then the tables' numbers, which training would undo.
"""

from collections.abc import Mapping
from typing import Any

from models.compression.recipe import Recipe
from models.compression.subject import Subject
from models.networks.config import DeepConfig, DinConfig

Forms = dict[str, tuple[str, ...]]
"""Part -> its forms by name; the first is as it is."""
WHOLE = "whole"
TEACHERS = ("0", "0.3", "1")
RATES = ("0.0001", "0.0003", "0.001")
USUAL = ("0.3", "0.0003")
"""The teacher's weight and the learning rate that every survivor is fine-tuned with first."""


def forms_of(subject: Subject) -> Forms:
    """What can be chosen for a network."""
    model = subject.embedded
    forms: Forms = {}
    if isinstance(model, DinConfig):
        units = [(max(2, a // n), max(1, b // n)) for a, b in [model.attention_hidden] for n in (2, 5, 10)]
        forms["attention"] = (WHOLE, *dict.fromkeys(f"{a}-{b}" for a, b in units))
    if isinstance(model, DeepConfig):
        forms["hidden"] = (WHOLE, *("-".join(str(max(1, units // n)) for units in model.hidden) for n in (2, 4)))
        forms["rank"] = (WHOLE, "2x", "4x", "8x")
    forms["tables"] = ("fp32", "int8", "int4")
    return forms


def recipe_of(chosen: Mapping[str, str], name: str, tuning: tuple[str, str] | None = None) -> Recipe:
    """The recipe of chosen forms. `tuning`: the teacher's weight and the learning rate; None: without fine-tuning, as
    it is estimated."""
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
    if tuning is not None:
        steps.append({"step": "fine_tune", "teacher": float(tuning[0]), "learning_rate": float(tuning[1])})
    if chosen["tables"] != "fp32":
        steps.append({"step": "values", "tables": chosen["tables"]})
    return Recipe.model_validate({"name": name, "steps": steps})


def is_whole(chosen: Mapping[str, str]) -> bool:
    """Whether everything stays as it is."""
    return all(form in (WHOLE, "fp32") for form in chosen.values())


def _numbers(text: str) -> list[int]:
    return [int(each) for each in text.split("-")]
