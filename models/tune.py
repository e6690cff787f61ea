"""`adrank tune`: search a model's parameters. Always on the validation split; the test split is not read."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from models.checkpoint import write_json
from models.config import ConfigError, TrainConfig, read_config, read_dataset
from models.data.prepare import ensure_prepared
from models.data.spec import DataError, read_yaml
from models.labels import labelled
from models.networks.config import QscoreConfig
from models.numerics import at_least, computing
from models.options import file_to_write, folder_to_write, seed
from models.preflight import require_fields, require_splits
from models.search_space import find_space, put, read_space, with_values
from models.study import Search, configuration, finished, open_study, run_trial, values

EVALUATIONS = 4


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank tune",
        description="Search a model's parameters with Optuna (TPE, median pruning), on the validation split. The first "
        "trial is the configuration as it is, where the space holds it. An interrupted search continues when the same "
        "command is given again; more --trials continue a finished one.",
    )
    p.add_argument("config", type=Path, metavar="CONFIG.yaml", help="YAML of model and training to begin with")
    p.add_argument("--data", type=Path, metavar="DIR", required=True, help="folder with the raw files")
    p.add_argument(
        "--trials", type=at_least(1), metavar="N", required=True, help="trials in all, earlier ones included"
    )
    p.add_argument(
        "--space",
        type=Path,
        metavar="FILE",
        help="YAML with the keys to search (default models/configs/tune/NAME.yaml, else KIND.yaml)",
    )
    p.add_argument("--seeds", type=seed, metavar="N", nargs="+", default=[1], help="a trial is their mean (default 1)")
    p.add_argument(
        "--evaluations",
        type=at_least(1),
        metavar="N",
        default=EVALUATIONS,
        help="at least so many evaluations an epoch, at which trials can be pruned; the patience grows with it "
        f"(default {EVALUATIONS})",
    )
    p.add_argument(
        "--warmup",
        type=at_least(1),
        metavar="N",
        default=1,
        help="the first evaluation of a trial at which it may be pruned (default 1)",
    )
    p.add_argument(
        "--out",
        type=folder_to_write,
        metavar="DIR",
        default=Path("artifacts/tune"),
        help="where the folder NAME with study.sqlite and best.yaml goes (default artifacts/tune)",
    )
    p.add_argument("--write", type=file_to_write, metavar="FILE", help="where the best configuration goes instead")
    p.add_argument(
        "--prepared",
        type=folder_to_write,
        metavar="DIR",
        default=Path("artifacts/data"),
        help="where prepared data are kept (default artifacts/data)",
    )
    p.add_argument("--threads", type=at_least(1), metavar="N", default=2, help="torch threads (default 2)")
    p.add_argument("--fresh", action="store_true", help="forget an earlier search of the same name")
    p.add_argument("--json", type=file_to_write, metavar="FILE", help="write the outcome as flat JSON")
    p.add_argument("--quiet", action="store_true", help="no progress bar")
    return p


def main(argv: list[str]) -> int:
    """Exit code 0, 2 for bad input, 1 when no trial came to its end, 130 when interrupted."""
    options = parser().parse_args(argv)
    if len(set(options.seeds)) < len(options.seeds):
        print(f"adrank tune: --seeds names a seed twice: {options.seeds}", file=sys.stderr)
        return 2
    with computing(options.threads):
        try:
            return run(options)
        except (ConfigError, DataError) as error:
            print(f"adrank tune: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("adrank tune: interrupted; the same command continues from here", file=sys.stderr)
            return 130


def run(options: argparse.Namespace) -> int:
    """The command with its options read."""
    given = read_config(options.config)
    if isinstance(given.model, QscoreConfig):
        raise ConfigError(f"{options.config}: a Qscore is counted, not trained; there is nothing to tune")
    config = evaluated_often(given, options.evaluations)
    space = read_space(find_space(config, options.space), config)
    spec = read_dataset(options.config, config, options.data)
    require_fields(config, spec, str(options.config))
    data = labelled(config, ensure_prepared(spec, options.data, options.prepared, progress=not options.quiet))
    require_splits(config, data)
    folder = options.out / config.name
    if options.fresh and folder.exists():
        shutil.rmtree(folder)
    search = Search(config, space, data, tuple(options.seeds))
    with open_study(search, folder, options.warmup) as study:
        search_on(study, search, folder, options.trials, progress=not options.quiet)
        trials = finished(study)
        best = study.best_trial if any(trial.state == TrialState.COMPLETE for trial in trials) else None
    if best is None:
        print(f"adrank tune: none of {len(trials)} trials came to its end", file=sys.stderr)
        return 1
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    said = f"best of {len(trials)} trials ({pruned} pruned): valid {config.training.monitor} {best.value:.4f}"
    print(said)
    for key, value in values(space, best.params).items():
        print(f"  {key.ljust(32)} {value}")
    path = options.write or folder / "best.yaml"
    write_config(path, options.config, search, best, f"adrank tune, {said}")
    print(path)
    if options.json:
        figures = {"best": best.value, "trials": len(trials), "pruned": pruned}
        write_json(options.json, {f"tune.{config.name}.{key}": value for key, value in figures.items()})
    return 0


def evaluated_often(config: TrainConfig, evaluations: int) -> TrainConfig:
    """The configuration with at least so many evaluations an epoch, and patience for the same part of an epoch."""
    own = config.training
    if own.evaluations >= evaluations:
        return config
    patience = -(-own.patience * evaluations // own.evaluations)
    return with_values(config, {"training.evaluations": evaluations, "training.patience": patience})


def search_on(study: optuna.Study, search: Search, folder: Path, trials: int, *, progress: bool) -> None:
    """Until the study has so many finished trials; a line each."""
    done = len(finished(study))
    with tqdm(
        total=trials, initial=min(done, trials), desc=search.config.name, unit="trial", disable=not progress
    ) as bar:
        for number in range(done, trials):
            told = run_trial(study, search, folder)
            bar.write(f"[{number + 1}/{trials}] {_outcome(told, search)}")
            bar.update()


def _outcome(trial: FrozenTrial, search: Search) -> str:
    shown = "  ".join(f"{key.rpartition('.')[2]} {_short(value)}" for key, value in trial.params.items())
    if "error" in trial.user_attrs:
        return f"failed: {trial.user_attrs['error']}  {shown}"
    if trial.state == TrialState.COMPLETE:
        return f"{search.config.training.monitor} {trial.value:.4f}  {shown}"
    step = trial.last_step
    last = "" if step is None else f" at {trial.intermediate_values[step]:.4f} after {step} evaluations"
    return f"pruned{last}  {shown}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_config(path: Path, base: Path, search: Search, best: FrozenTrial, said: str) -> None:
    """The base's YAML with the best trial's parameters. It names the same dataset from where it stands."""
    content = read_yaml(base)
    place = base.parent / content["dataset"]
    if place.is_file():
        content["dataset"] = Path(os.path.relpath(place, path.parent)).as_posix()
    for key in ("evaluations", "patience"):
        put(content, f"training.{key}", getattr(search.config.training, key))
    for key, value in values(search.space, best.params).items():
        put(content, key, value)
    wanted = configuration(search, best.params).model_copy(update={"dataset": content["dataset"]})
    written = f"# {said}\n{yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)}"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(written, encoding="utf-8")
    assert read_config(temporary) == wanted
    temporary.replace(path)
