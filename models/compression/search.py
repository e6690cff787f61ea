"""A recipe that reaches a target, found in two rounds.

    estimates    forms are combined (Optuna, several objectives); what is too large by its shapes is not computed, the
                 rest is judged on a part of the validation split, without fine-tuning
    survivors    those that no other one beats in size and estimate are fine-tuned, with the usual settings first, then
                 the best of them with others; judged on the whole validation split

Estimates are in an SQLite file, every fine-tuned candidate is a recipe's folder of its own: a search that was
interrupted goes on. The test split is not read.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from models.checkpoint import Checkpoint, digest
from models.compression.choices import OTHERS, USUAL, Forms, Settings, forms_of, is_whole, recipe_of
from models.compression.pipeline import NOBODY, Compressed, compress
from models.compression.registry import take
from models.compression.sizes import sizes_of
from models.compression.subject import CompressionError, Material, Subject
from models.compression.target import Target
from models.compression.teachers import Teachers
from models.config import ConfigError
from models.data.batches import batches
from models.data.prepared import PreparedData
from models.evaluation import BATCH, network_scorer
from models.metrics import summary
from models.study import storage_in

ESTIMATED = 40_000
"""Impressions of the validation split that estimates are made on."""
WORST = -1.0
"""The change of GAUC of what is not judged, because it is too large."""
Tell = Callable[[str], None]
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for, of what."""

    checkpoint: Checkpoint
    data: PreparedData
    target: Target
    seed: int
    trials: int
    """Estimates."""
    survivors: int
    """Candidates that are fine-tuned at least once."""
    tunings: int
    """Fine-tunings in all."""
    teachers: Teachers = NOBODY
    """Whom fine-tuning learns from."""

    @property
    def identity(self) -> dict[str, object]:
        """What must be the same when a search is continued; more trials may be asked for."""
        return {
            "original": digest(self.checkpoint.folder / "best.pt"),
            "data": self.data.prepared.fingerprint,
            "sizes": " ".join(map(str, self.target.sizes)),
            "seed": self.seed,
        }


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fine-tuned survivor."""

    name: str
    folder: Path
    found: Compressed
    figures: Figures
    """bytes, macs and parameters as shares of the original's; dauc, dgauc and dlogloss on the validation split."""


def search(wanted: Search, folder: Path, tell: Tell, *, progress: bool) -> list[Candidate]:
    """All fine-tuned candidates, in the order in which they were made. ConfigError when `folder` holds another search,
    or nothing is as small as asked."""
    original = Subject(wanted.checkpoint.config, wanted.checkpoint.network())
    forms = forms_of(original)
    with storage_in(folder) as storage:
        study = _opened(storage, wanted, folder)
        estimate = _Estimate(wanted, original, folder / "estimates")
        for number in range(len(_done(study)), wanted.trials):
            said = _estimated(study, forms, estimate, wanted.target, wanted.seed * 1_000_003 + number)
            tell(f"[{number + 1}/{wanted.trials}] {said}")
        survivors = chosen(study, wanted.survivors)
        if not survivors:
            raise ConfigError(
                f"none of {wanted.trials} candidates is as small as {' '.join(map(str, wanted.target.sizes))}; "
                "more --trials, or a larger target"
            )
        return list(_tuned(survivors, wanted, original, folder, tell, progress=progress))


def best_of(candidates: list[Candidate], target: Target) -> Candidate:
    """The best GAUC on the validation split among those that miss least of the target."""
    return min(candidates, key=lambda each: (len(target.missed(each.figures)), -each.figures["dgauc"]))


def front(candidates: list[Candidate]) -> list[Candidate]:
    """Those that no other beats in bytes, multiply-adds and GAUC at once; of equal ones the first, as where fine-tuning
    kept the start."""

    def beats(one: Candidate, other: Candidate) -> bool:
        a, b = ((c.figures["bytes"], c.figures["macs"], -c.figures["dgauc"]) for c in (one, other))
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    unlike = [each for i, each in enumerate(candidates) if all(each.figures != one.figures for one in candidates[:i])]
    return [each for each in unlike if not any(beats(other, each) for other in unlike)]


class _Estimate:
    """Candidates without fine-tuning, against the original, on the same part of the validation split."""

    def __init__(self, wanted: Search, original: Subject, folder: Path) -> None:
        self.wanted, self.original, self.folder = wanted, original, folder
        self.sizes = sizes_of(original.network)
        self.quality = self._quality(original)

    def __call__(self, forms: Mapping[str, str]) -> Figures | str:
        """What it comes to, its sizes alone where they miss the target; or why there is no such network."""
        if is_whole(forms):
            return "is the original"
        subject = self.original
        material = Material(self.wanted.data, self.folder, self.wanted.seed, self.original, False)
        try:
            for step in recipe_of(forms, "estimate").steps:
                subject = take(step, subject, material)
        except CompressionError as error:
            return str(error)
        figures = shares(subject, self.original)
        if not all(bound.holds(figures) for bound in self.wanted.target.sizes):
            return figures
        quality = self._quality(subject)
        return figures | {f"d{name}": quality[name] - self.quality[name] for name in ("auc", "gauc", "logloss")}

    def _quality(self, subject: Subject) -> dict[str, float]:
        score = network_scorer(subject.network)
        part = list(islice(batches(self.wanted.data, "valid", BATCH), -(-ESTIMATED // BATCH)))
        labels, users = (np.concatenate(each) for each in ([b.labels.numpy() for b in part], [b.users for b in part]))
        return summary(labels, np.concatenate([score(batch) for batch in part]), users)


def shares(subject: Subject, original: Subject) -> Figures:
    """Sizes ÷ those of the original."""
    found, whole = sizes_of(subject.network), sizes_of(original.network)
    return {
        "bytes": found.bytes / whole.bytes,
        "macs": found.candidate / max(whole.candidate, 1),
        "parameters": found.parameters / whole.parameters,
    }


def chosen(study: optuna.Study, most: int) -> list[dict[str, str]]:
    """Forms of the estimates that no other beats, the best estimates first; then the best of the others."""
    judged = [t for t in study.get_trials(states=(TrialState.COMPLETE,)) if "dgauc" in t.user_attrs["figures"]]
    unbeaten = {trial.number for trial in study.best_trials} if judged else set()
    ranked = sorted(judged, key=lambda trial: (trial.number not in unbeaten, -trial.values[2]))
    found: list[dict[str, str]] = []
    for trial in ranked:
        if trial.params not in found:
            found.append(trial.params)
    return found[:most]


def _estimated(study: optuna.Study, forms: Forms, estimate: _Estimate, target: Target, seed: int) -> str:
    """One estimate more, and what is to be said of it. What is too large is told too, as beyond the constraint: the
    sampler then looks for smaller ones."""
    study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True)
    trial = study.ask({part: CategoricalDistribution(names) for part, names in forms.items()})
    known = next((t for t in study.get_trials(states=(TrialState.COMPLETE,)) if t.params == trial.params), None)
    figures = known.user_attrs["figures"] if known is not None else estimate(trial.params)
    if isinstance(figures, str):
        study.tell(trial, state=TrialState.FAIL)
        return f"{shown(trial.params)}: {figures}"
    trial.set_user_attr("figures", figures)
    for bound in target.sizes:
        trial.set_constraint(bound.name, figures[bound.name] - bound.value)
    study.tell(trial, [figures["bytes"], figures["macs"], figures.get("dgauc", WORST)])
    missed = [str(bound) for bound in target.sizes if not bound.holds(figures)]
    return f"{shown(trial.params)}: {line(figures)}{'  misses ' + ', '.join(missed) if missed else ''}"


def _tuned(
    survivors: list[dict[str, str]], wanted: Search, original: Subject, folder: Path, tell: Tell, *, progress: bool
) -> Iterator[Candidate]:
    """Every survivor with the usual settings; then the two that came out best with other ones."""
    made: list[tuple[dict[str, str], Candidate]] = []
    for number in range(wanted.tunings):
        following = _following(survivors, made)
        if following is None:
            return
        forms, settings, name = following
        recipe = recipe_of(forms, name, settings)
        found = compress(
            wanted.checkpoint, recipe, wanted.data, folder / name, wanted.seed,
            progress=progress, teachers=wanted.teachers if settings.teacher else NOBODY,
        )  # fmt: skip
        first, last = found.record.steps[0].figures, found.record.steps[-1].figures
        figures = shares(found.subject, original) | {
            f"d{name}": last[f"valid.{name}"] - first[f"valid.{name}"] for name in ("auc", "gauc", "logloss")
        }
        missed = wanted.target.missed(figures)
        outcome = f"misses {', '.join(missed)}" if missed else "reaches the target"
        tell(f"[{number + 1}/{wanted.tunings}] {name}: {shown(forms)}: {line(figures)}  {outcome}")
        made.append((forms, Candidate(name, folder / name, found, figures)))
        yield made[-1][1]


def _following(
    survivors: list[dict[str, str]], made: list[tuple[dict[str, str], Candidate]]
) -> tuple[dict[str, str], Settings, str] | None:
    """Forms, settings and name of what is to be fine-tuned next; None when all was tried."""
    names = {candidate.name for _, candidate in made}
    best_first = sorted(made, key=lambda each: -each[1].figures["dgauc"])
    usual = [(forms, USUAL) for forms in survivors]
    others = [(forms, settings) for settings in OTHERS for forms, _ in best_first[:2]]
    for forms, settings in (*usual, *others):
        said = json.dumps([forms, asdict(settings)], sort_keys=True)
        name = f"candidate-{hashlib.sha256(said.encode()).hexdigest()[:8]}"
        if name not in names:
            return forms, settings, name
    return None


def shown(forms: Mapping[str, str]) -> str:
    """Forms as they are shown."""
    return "  ".join(f"{part} {form}" for part, form in forms.items())


def line(figures: Figures) -> str:
    """Figures as they are shown."""
    return "  ".join(
        f"{name} {value:+.4f}" if name.startswith("d") else f"{name} {value:.3f}" for name, value in figures.items()
    )


def _done(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))


def _opened(storage: optuna.storages.RDBStorage, wanted: Search, folder: Path) -> optuna.Study:
    """The study begun or continued: bytes and multiply-adds fall, GAUC rises. A trial that was cut off counts as
    failed."""
    study = optuna.create_study(
        storage=storage, study_name="estimates", directions=["minimize", "minimize", "maximize"], load_if_exists=True
    )
    if "search" not in study.user_attrs:
        study.set_user_attr("search", wanted.identity)
    elif study.user_attrs["search"] != wanted.identity:
        different = [key for key, value in wanted.identity.items() if study.user_attrs["search"].get(key) != value]
        raise ConfigError(f"{folder} holds a search with another {', '.join(different)}; --fresh starts over")
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    return study
