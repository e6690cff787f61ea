"""A search that can be interrupted: Optuna's trials in SQLite, each a training run that validation may prune.

An interrupted and continued search makes the same trials as one that was not interrupted: the sampler's seed depends on
the number of finished trials alone, and a trial that was cut off is continued at its step.
"""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import JsonValue

from models.config import ConfigError, TrainConfig
from models.data.prepared import PreparedData
from models.networks.config import QscoreConfig
from models.search_space import Choice, FloatRange, IntRange, Range, Space, value_of, with_values
from models.training import TrainingError, train

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP = 5
"""Trials that are never pruned, because there is nothing yet to compare with."""
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched, on what."""

    config: TrainConfig
    space: Space
    data: PreparedData
    seeds: tuple[int, ...]
    """Each trial's figure is the mean over these."""

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same when a study is continued."""
        return {
            "config": self.config.model_dump(mode="json"),
            "space": self.space.model_dump(mode="json"),
            "data": self.data.prepared.fingerprint,
            "seeds": list(self.seeds),
        }


@contextmanager
def open_study(search: Search, folder: Path, warmup: int = 1) -> Iterator[optuna.Study]:
    """The study in `folder`, begun or continued. Trials that were cut off are put in front of the queue.

    A trial is not pruned before its evaluation number `warmup`.

    ConfigError when the folder's study searches something else, or another process is at it.
    """
    with storage_in(folder) as storage:
        study = optuna.create_study(
            storage=storage,
            study_name=search.config.name,
            direction="minimize" if search.config.training.monitor == "logloss" else "maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=warmup),
            load_if_exists=True,
        )
        _begin(study, search, folder)
        yield study


@contextmanager
def storage_in(folder: Path) -> Iterator[optuna.storages.RDBStorage]:
    """study.sqlite in `folder`, for this process alone. ConfigError when another is at it."""
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{folder}: another process is searching here") from None
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study.sqlite'}")
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()


def _begin(study: optuna.Study, search: Search, folder: Path) -> None:
    identity = json.loads(json.dumps(search.identity))
    if "search" not in study.user_attrs:
        own = {key: value_of(search.config, key) for key in search.space.tune}
        if all(search.space.tune[key].holds(value) for key, value in own.items()):
            study.enqueue_trial({key: _stored(search.space, key, value) for key, value in own.items()})
        study.set_user_attr("search", identity)
    elif study.user_attrs["search"] != identity:
        different = [key for key, value in identity.items() if study.user_attrs["search"].get(key) != value]
        raise ConfigError(f"{folder} holds a search with another {', '.join(different)}; --fresh starts over")
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs=trial.user_attrs)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ran to their end or were pruned, in order."""
    return study.get_trials(states=DONE)


def run_trial(study: optuna.Study, search: Search, folder: Path) -> FrozenTrial:
    """One trial more: asked for, trained, told. KeyboardInterrupt leaves it to be continued."""
    study.sampler = optuna.samplers.TPESampler(seed=search.seeds[0] * 1_000_003 + len(finished(study)))
    trial = study.ask({key: _distribution(where) for key, where in search.space.tune.items()})
    if "folder" not in trial.user_attrs:
        trial.set_user_attr("folder", f"trial-{trial.number}")
    place = folder / trial.user_attrs["folder"]
    try:
        told = study.tell(trial, _objective(trial, search, place))
    except optuna.TrialPruned:
        told = study.tell(trial, state=TrialState.PRUNED)
    except TrainingError as error:  # a learning rate too large, say: a bad trial, not the end of the search
        trial.set_user_attr("error", str(error))
        told = study.tell(trial, state=TrialState.PRUNED)
    shutil.rmtree(place, ignore_errors=True)
    return told


def _objective(trial: Trial, search: Search, place: Path) -> float:
    """The monitored metric of the validation split: the best evaluation's, mean over seeds."""
    config = configuration(search, trial.params)
    assert not isinstance(config.model, QscoreConfig)
    monitor = config.training.monitor
    best = min if monitor == "logloss" else max
    most = config.training.epochs * config.training.evaluations
    values = []
    for index, seed in enumerate(search.seeds):
        found: list[float] = []

        def watch(
            number: int, metrics: dict[str, float], start: int = index * most, found: list[float] = found
        ) -> None:
            found.append(metrics[monitor])
            trial.report(found[-1], start + number)
            if trial.should_prune():
                raise optuna.TrialPruned

        (place / f"seed{seed}").mkdir(parents=True, exist_ok=True)
        train(config, config.model, search.data, place / f"seed{seed}", seed, progress=False, watch=watch)
        values.append(best(found))
    return sum(values) / len(values)


def configuration(search: Search, params: dict[str, Any]) -> TrainConfig:
    """The configuration of a trial."""
    return with_values(search.config, values(search.space, params))


def values(space: Space, params: dict[str, Any]) -> dict[str, JsonValue]:
    """A trial's parameters as the configuration has them."""
    return {key: _value(space.tune[key], each) for key, each in params.items()}


def _value(where: Range, stored: Any) -> JsonValue:
    match where:
        case Choice():
            value: JsonValue = json.loads(stored)
            return value
        case FloatRange():
            return where.rounded(stored)
        case IntRange():
            whole: int = stored
            return whole


def _stored(space: Space, key: str, value: JsonValue) -> JsonValue:
    """A value as the study has it: choices as JSON, because SQLite keeps no lists."""
    where = space.tune[key]
    return json.dumps(where.values[where.values.index(value)]) if isinstance(where, Choice) else value


def _distribution(where: FloatRange | IntRange | Choice) -> BaseDistribution:
    match where:
        case FloatRange():
            return FloatDistribution(where.low, where.high, log=where.log)
        case IntRange():
            return IntDistribution(where.low, where.high, log=where.log, step=where.step)
        case Choice():
            return CategoricalDistribution([json.dumps(value) for value in where.values])
