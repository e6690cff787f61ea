"""Training goes on after a step that cost accuracy."""

import torch

from models.compression.recipe import FineTune
from models.compression.subject import Material, Subject
from models.evaluation import evaluate, network_scorer
from models.teaching import Lesson
from models.training import train


def fine_tune(step: FineTune, subject: Subject, material: Material) -> Subject:
    """The best of the start and the evaluations on the validation split, by what the original was chosen by."""
    training = subject.config.training.model_copy(
        update={
            "epochs": step.epochs,
            "learning_rate": step.learning_rate,
            "schedule": step.schedule,
            "evaluations": step.evaluations,
            "patience": step.epochs * step.evaluations,
            "pretraining": None,
        }
    )
    teachers = material.teachers or (material.original.network,)
    lesson = Lesson(teachers, step.teacher, step.dealt) if step.teacher else None
    config = subject.config.model_copy(update={"training": training, "rocket": None})
    start = subject.network.state_dict()
    before = evaluate(network_scorer(subject.network), material.data, "valid")[training.monitor]
    tuned = train(
        config,
        subject.model,
        material.data,
        material.folder,
        material.seed,
        progress=material.progress,
        start=start,
        lesson=lesson,
        dense_only=not step.tables,
    )
    after = evaluate(network_scorer(tuned), material.data, "valid")[training.monitor]
    worse = after > before if training.monitor == "logloss" else after < before
    state: dict[str, torch.Tensor] = start if worse else tuned.state_dict()
    return subject.rebuilt(subject.model, state)
