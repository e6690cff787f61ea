"""A small trained-looking subject over the shop of tests/models/growing.py, and what its steps may use."""

from pathlib import Path
from typing import Any

from models.compression.subject import Material, Subject
from models.data.prepared import PreparedData
from tests.models.growing import early, trained, write_shop

GWEN: dict[str, Any] = {"kind": "gwen", "embedding": 4, "hidden": [8], "position_bias": True}


def shop(folder: Path) -> PreparedData:
    """Its first half."""
    return early(write_shop(folder / "raw"), folder / "data")


def subject_of(data: PreparedData, folder: Path, model: dict[str, Any] | None = None, **training: Any) -> Subject:
    """A network after a short training."""
    checkpoint = trained(model or GWEN, data, folder / "original", **training)
    return Subject(checkpoint.config, checkpoint.network())


def material(data: PreparedData, folder: Path, original: Subject) -> Material:
    """Of one step."""
    (folder / "step").mkdir(exist_ok=True)
    return Material(data, folder / "step", 1, original, progress=False)
