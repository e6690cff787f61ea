"""Other checkpoints that a recipe's fine-tuning learns from, instead of the original: the mean of their logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bundle.certificate import Teacher
from models.checkpoint import Checkpoint, digest, open_checkpoint
from models.compression.recipe import FineTune, Recipe, Step
from models.compression.subject import CompressionError
from models.networks.network import Network


@dataclass(frozen=True, slots=True)
class Teachers:
    """Trained networks, in evaluation mode, and what they are known by. None: the original teaches."""

    networks: tuple[Network, ...] = ()
    known: tuple[Teacher, ...] = ()

    def identity(self, step: Step) -> str:
        """What tells a step taught by them from one taught by others; empty where they have no part in it."""
        if not (isinstance(step, FineTune) and step.teacher):
            return ""
        return "".join(f" {each.weights}" for each in self.known)

    def require_pupil(self, recipe: Recipe) -> None:
        """CompressionError when there are teachers and no step that learns from them."""
        if self.known and not any(isinstance(step, FineTune) and step.teacher for step in recipe.steps):
            names = ", ".join(each.name for each in self.known)
            raise CompressionError(f"recipe {recipe.name!r} has no step fine_tune with a teacher; given are {names}")


def open_teachers(folders: Sequence[Path], original: Checkpoint) -> Teachers:
    """The checkpoints in these folders. CompressionError for one that was trained on other data, that reads other
    fields or that scores another label than the original, and for one that is there twice."""
    found = [open_checkpoint(folder) for folder in folders]
    known: list[Teacher] = []
    for each in found:
        _require_same(each, original)
        weights = digest(each.folder / "best.pt")
        if (twice := next((one for one in known if one.weights == weights), None)) is not None:
            raise CompressionError(f"teacher {each.folder}: the same weights as teacher {twice.name}")
        known.append(Teacher(name=each.folder.name, seed=each.seed, weights=weights))
    return Teachers(tuple(each.network() for each in found), tuple(known))


def _require_same(teacher: Checkpoint, original: Checkpoint) -> None:
    if teacher.data_fingerprint != original.data_fingerprint:
        raise CompressionError(
            f"teacher {teacher.folder} was trained on data {teacher.data_fingerprint[:12]}, {original.folder} on "
            f"{original.data_fingerprint[:12]}: ids would not mean the same"
        )
    for part in type(teacher.schema).model_fields:
        if getattr(teacher.schema, part) != getattr(original.schema, part):
            raise CompressionError(
                f"teacher {teacher.folder} has another {part!r} in its schema: not {original.folder}'s"
            )
    labels = teacher.config.training.label, original.config.training.label
    if labels[0] != labels[1]:
        raise CompressionError(f"teacher {teacher.folder} scores {labels[0]!r}, {original.folder} scores {labels[1]!r}")
