"""All steps of a recipe in order. Each leaves a folder of its own; a recipe that was interrupted goes on after the last
step that is finished, and a step that trains goes on where it was.

OUT/steps/N-STEP/step.json   the step, what it was measured to do, and a digest of all that came before
OUT/steps/N-STEP/model.json  the network's configuration afterwards      OUT/steps/N-STEP/weights.pt  its weights
OUT/                         a checkpoint (models/checkpoint.py) of the last one, and compression.json
"""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field, TypeAdapter

from bundle.certificate import Teacher
from bundle.schema import Frozen
from models.checkpoint import Checkpoint, begin, save_state, write_json
from models.checkpoint import digest as file_digest
from models.compression.recipe import Recipe, Step
from models.compression.registry import take
from models.compression.sizes import sizes_of
from models.compression.subject import CompressionError, Material, Subject
from models.compression.teachers import Teachers
from models.config import ConfigError
from models.data.batches import count
from models.data.prepared import PreparedData
from models.evaluation import evaluate, network_scorer
from models.labels import prefix_of
from models.networks.config import ModelConfig, NetworkConfig, QscoreConfig

RECORD = "compression.json"
FORMAT = 2
"""Part of every digest: to be raised when a step leaves something else behind, so that older steps are taken again."""
MODEL: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)
MANY = 4
"""Entries of a mapping that are named one by one."""
NOBODY = Teachers()
"""The original teaches."""


class Measured(Frozen):
    """The network before the recipe, or after one step."""

    what: str
    figures: dict[str, float]
    """models/compression/sizes.py, and valid.auc, valid.gauc, valid.logloss."""
    changed: tuple[str, ...] = ()
    """What the step changed of the network's configuration: key: value."""


class Record(Frozen):
    """compression.json: where a compressed checkpoint comes from."""

    original: str
    """Folder of the checkpoint it was made from."""
    original_weights: str = Field(pattern="^[0-9a-f]{64}$")
    """Of its best.pt."""
    recipe: Recipe
    teachers: tuple[Teacher, ...] = ()
    """Of the steps that were taught. None: the original."""
    steps: tuple[Measured, ...]
    """The original, then one entry a step."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """What came out."""

    original: Subject
    subject: Subject
    record: Record


def compress(
    checkpoint: Checkpoint,
    recipe: Recipe,
    data: PreparedData,
    out: Path,
    seed: int,
    *,
    progress: bool = True,
    teachers: Teachers = NOBODY,
) -> Compressed:
    """Take all steps and leave a checkpoint in `out`. `data` have the label that the checkpoint scores
    (models/labels.py). Steps that are taught learn from `teachers` (models/compression/teachers.py), or from the
    original. ConfigError when `out` holds something else, CompressionError when a step does not fit the network it
    meets, or nothing learns from the teachers."""
    if isinstance(checkpoint.config.model, QscoreConfig):
        raise CompressionError(f"{checkpoint.folder}: a Qscore is a table of one number an ad, there is nothing to do")
    checkpoint.require_same_data(data)
    teachers.require_pupil(recipe)
    original = Subject(checkpoint.config, checkpoint.network())
    weights = file_digest(checkpoint.folder / "best.pt")
    _require_ours(out, checkpoint.folder)
    (out / "certificate.json").unlink(missing_ok=True)  # what is made now is not what it was about
    measured = [Measured(what="original", figures=figures(original, data))]
    subject, digest = original, f"{FORMAT} {weights} {seed}"
    for number, step in enumerate(recipe.steps):
        said = f"{digest} {step.model_dump_json()}{teachers.identity(step)}"
        digest = hashlib.sha256(said.encode()).hexdigest()
        folder = out / "steps" / f"{number}-{step.step}"
        material = Material(data, folder, seed, original, progress, teachers.networks)
        subject, after = _taken(step, digest, subject, material)
        measured.append(after)
    record = Record(
        original=str(checkpoint.folder),
        original_weights=weights,
        recipe=recipe,
        teachers=teachers.known,
        steps=tuple(measured),
    )
    _finish(subject, record, recipe, data, out, seed)
    return Compressed(original, subject, record)


def figures(subject: Subject, data: PreparedData) -> dict[str, float]:
    """Sizes, and quality on the validation split."""
    quality = evaluate(network_scorer(subject.network), data, "valid")
    return sizes_of(subject.network).figures() | {f"valid.{name}": value for name, value in quality.items()}


def _taken(step: Step, digest: str, subject: Subject, material: Material) -> tuple[Subject, Measured]:
    """One step, or what it left behind when it was taken before."""
    folder = material.folder
    done = folder / "step.json"
    if done.exists():
        head = json.loads(done.read_text())
        if head["digest"] == digest:
            model = MODEL.validate_json((folder / "model.json").read_bytes())
            assert not isinstance(model, QscoreConfig)
            state = torch.load(folder / "weights.pt", weights_only=True)
            return subject.rebuilt(model, state), Measured.model_validate(head["measured"])
    begun = folder / "digest"
    if folder.exists() and (not begun.exists() or begun.read_text() != digest):
        shutil.rmtree(folder)  # of another recipe: nothing in it is of use
    folder.mkdir(parents=True, exist_ok=True)
    begun.write_text(digest)
    found = take(step, subject, material)
    _require_finite(step, found)
    after = Measured(what=step.step, figures=figures(found, material.data), changed=changes(subject.model, found.model))
    save_state(folder / "weights.pt", found.network.state_dict())
    (folder / "model.json").write_text(found.model.model_dump_json(indent=1))
    write_json(done, {"digest": digest, "measured": after.model_dump()})
    return found, after


def changes(before: NetworkConfig, after: NetworkConfig) -> tuple[str, ...]:
    """Each key of the configuration that differs, with what it became. Many entries, as when all tables are rounded,
    are counted by what they say."""
    old, new = before.model_dump(exclude_defaults=True), after.model_dump(exclude_defaults=True)
    return tuple(f"{key}: {_said(value)}" for key, value in new.items() if old.get(key) != value)


def _said(value: object) -> str:
    """As JSON; the values of a larger mapping with their number of keys."""
    if not isinstance(value, dict) or len(value) <= MANY:
        return json.dumps(value)
    counted = Counter(json.dumps(each) for each in value.values())
    return ", ".join(f"{each} of {number}" for each, number in counted.items())


def _require_finite(step: Step, subject: Subject) -> None:
    for name, value in subject.network.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CompressionError(f"step {step.step}: weight {name!r} holds values that are not finite")


def _require_ours(out: Path, original: Path) -> None:
    if out.resolve() == original.resolve():
        raise ConfigError(f"{out}: the checkpoint that is to be made smaller; choose another --out")
    if out.exists() and any(out.iterdir()) and not (out / "steps").is_dir():
        raise ConfigError(f"{out} holds something else than a compressed checkpoint; choose another --out")


def _finish(subject: Subject, record: Record, recipe: Recipe, data: PreparedData, out: Path, seed: int) -> None:
    """The checkpoint, with metrics like any other."""
    name = f"{subject.config.name}-{recipe.name}"
    begin(out, subject.config.model_copy(update={"name": name, "rocket": None}), data, seed)
    save_state(out / "best.pt", subject.network.state_dict())
    sizes = sizes_of(subject.network).figures()
    metrics = {f"model.{key}": value for key, value in sizes.items()}
    for split in ("valid", "test"):
        if count(data, split):
            found = evaluate(network_scorer(subject.network), data, split)
            metrics |= {f"{prefix_of(subject.config)}{split}.{key}": value for key, value in found.items()}
    (out / RECORD).write_text(record.model_dump_json(indent=1) + "\n")
    write_json(out / "metrics.json", metrics)
