"""Networks of random weights over the tiny marketplace, and what steps may use."""

from pathlib import Path
from typing import Any

import torch

from models.compression.recipe import Recipe
from models.compression.registry import take
from models.compression.subject import Material, Subject
from models.networks.config import QscoreConfig
from models.networks.registry import build
from tests.market import Market, make_config
from tests.models.world import shake

DIN: dict[str, Any] = {"kind": "din", "embedding": 4, "attention_hidden": [12, 8], "hidden": [16, 8]}
DIN_WITH_BIAS = DIN | {"position_bias": True}
DEEPFM: dict[str, Any] = {"kind": "deepfm", "embedding": 4, "hidden": [16, 8]}
WIDE_DEEP: dict[str, Any] = {
    "kind": "wide-deep", "embedding": 4, "hidden": [16, 8], "crosses": [["context.scene", "ad.category"]]
}  # fmt: skip


def subject(market: Market, model: dict[str, Any], seed: int = 0) -> Subject:
    """Random weights and Dice statistics."""
    config = make_config("small", model)
    assert not isinstance(config.model, QscoreConfig)
    torch.manual_seed(seed)
    network = build(config.model, market.data.schema)
    shake(network, seed)
    return Subject(config, network.eval())


def material(market: Market, folder: Path, original: Subject) -> Material:
    return Material(market.data, folder, 1, original, False)


def taken(market: Market, folder: Path, found: Subject, **step: Any) -> Subject:
    """The subject after one step."""
    recipe = Recipe.model_validate({"name": "one", "steps": [step]})
    return take(recipe.steps[0], found, material(market, folder, found))
