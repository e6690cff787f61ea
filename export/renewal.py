"""The next bundle: the networks that are served go on on what was logged, and are made small, true and a bundle again.

prepare     the log on the features of the checkpoints, so that ids keep their meaning
train       Qscore, pre-ranker and fine-ranker go on from where they were: one epoch of the log
compress    the fine-ranker, by a recipe
calibrate   both networks as they will be served, on the validation split of the log
export      one bundle, of the sizes of the one that is served
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bundle.folder import Bundle
from bundle.schema import FIRST_KNOWN, UNKNOWN
from export.assemble import FunnelSettings, Trained, assemble
from models.calibration import fit_level
from models.checkpoint import Checkpoint, begin, open_checkpoint, write_json
from models.compression.pipeline import compress
from models.compression.recipe import Recipe
from models.config import ConfigError, TrainConfig
from models.continuing import base_of, continue_network, identity
from models.data.batches import count
from models.data.prepare import ensure_prepared
from models.data.prepared import PreparedData
from models.data.spec import DataError, read_spec
from models.evaluation import evaluate, network_scorer, score_split, table_scorer
from models.labels import labelled
from models.networks.config import QscoreConfig
from models.networks.network import Network
from models.networks.registry import build
from models.qscore import continue_qscore
from models.training import train

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, slots=True)
class Stock:
    """What the served bundle was made of."""

    finerank: Checkpoint
    """Before it was compressed."""
    prerank: Checkpoint
    bundle: Bundle
    """Itself: its Qscores go on, and the next one has its sizes."""

    def check(self) -> None:
        """ConfigError unless the checkpoints are those that the bundle was made of, as far as their data tell."""
        for checkpoint in (self.finerank, self.prerank):
            if not self.bundle.manifest.made.data.endswith(checkpoint.data_fingerprint[:12]):
                raise ConfigError(
                    f"{checkpoint.folder} was trained on data {checkpoint.data_fingerprint[:12]}, the bundle "
                    f"{self.bundle.id} is made from {self.bundle.manifest.made.data!r}: it is not what is served"
                )


def prepared(log: Path, root: Path, stock: Stock, *, progress: bool) -> PreparedData:
    """The training log in folder `log`, prepared. DataError when it is too short to be split."""
    description = log / "dataset.yaml"
    if not description.exists():
        raise DataError(f"{log}: nothing was logged that somebody saw")
    data = ensure_prepared(read_spec(description), log, root, progress=progress, base=base_of(stock.finerank))
    if empty := [name for name in SPLITS if not count(data, name)]:
        raise DataError(f"{log}: its log is too short to be split, {', '.join(empty)} would be empty")
    return data


def carried(earlier: Checkpoint, data: PreparedData) -> Network:
    """The earlier network, its rows where the values of `data` have them."""
    assert not isinstance(earlier.config.model, QscoreConfig), "a Stock has networks"
    torch.manual_seed(0)
    network = build(earlier.config.model, data.schema)
    continue_network(network, data, earlier)
    return network.eval()


def continued(earlier: Checkpoint, data: PreparedData, folder: Path, seed: int, *, progress: bool) -> None:
    """Train one epoch on `data`, going on from `earlier`. An interrupted run goes on.

    One epoch with one evaluation, as `adrank bench daily` measures it: nothing is chosen. The light net of a rocket
    goes on without its booster, and its moments start anew: those of last.pt are of both together.
    """
    config = earlier.config
    model = config.model
    assert not isinstance(model, QscoreConfig), "a Stock has networks"
    training = config.training.model_copy(update={"epochs": 1, "evaluations": 1, "pretraining": None})
    config = config.model_copy(update={"training": training, "rocket": None})
    data = labelled(config, data)
    begin(folder, config, data, seed, identity(config, earlier))
    if earlier.config.rocket is None:
        network = train(config, model, data, folder, seed, progress=progress, earlier=earlier)
    else:
        network = train(config, model, data, folder, seed, progress=progress, start=carried(earlier, data).state_dict())
    found = evaluate(network_scorer(network), data, "test")
    write_json(folder / "metrics.json", {f"test.{name}": value for name, value in found.items()})


def recounted(stock: Stock, data: PreparedData, folder: Path, seed: int) -> None:
    """A Qscore checkpoint that goes on from the table of the served bundle."""
    model = QscoreConfig(kind="qscore")
    config = TrainConfig(name="qscore", dataset=stock.finerank.config.dataset, model=model)
    begin(folder, config, data, seed)
    ads = stock.bundle.ads
    rows = np.full(len(data.ads.fields), UNKNOWN)  # whose score is that of an ad that was never shown
    index = data.ads.index
    rows[FIRST_KNOWN:] = ads.index.ids_of_list([index.value_of(each) for each in range(FIRST_KNOWN, index.size)])
    qscore = continue_qscore(model, data, np.asarray(ads.qscores)[rows])
    np.savez(folder / "qscore.npz", scores=qscore.scores, mean=qscore.mean, strength=qscore.strength)
    found = evaluate(table_scorer(qscore.scores), data, "test")
    write_json(folder / "metrics.json", {f"test.{name}": value for name, value in found.items()})


def compressed(folder: Path, recipe: Recipe, data: PreparedData, out: Path, seed: int, *, progress: bool) -> float:
    """The fine-ranker in `folder`, made smaller as `out`: bytes after ÷ bytes before."""
    checkpoint = open_checkpoint(folder)
    found = compress(checkpoint, recipe, labelled(checkpoint.config, data), out, seed, progress=progress)
    first, last = found.record.steps[0].figures, found.record.steps[-1].figures
    return last["bytes"] / first["bytes"]


def calibrated(folder: Path, data: PreparedData) -> None:
    """Correct the level of a network's probabilities by the validation split. CalibrationError without clicks.

    The level alone: the best ten of thousands have nearly the same scores, and on some hundred such rows Platt's slope
    came out as 1.08, 0.72 and -0.42.
    """
    checkpoint = open_checkpoint(folder)
    valid = score_split(network_scorer(checkpoint.network()), labelled(checkpoint.config, data), "valid")
    checkpoint.calibration_file.write_text(fit_level(valid.labels, valid.scores).model_dump_json(indent=1) + "\n")


def exported(made_of: Sequence[Path], data: PreparedData, stock: Stock, root: Path, name: str) -> Path:
    """The next bundle in `root`, of the checkpoints of fine-ranker, pre-ranker and Qscore. One of the name that an
    interrupted run left there whole is taken; users live in Redis, so it carries none."""
    if (root / name).exists():
        return root / name
    stages = stock.bundle.manifest.stages
    sizes = FunnelSettings(
        retrieval=stages.retrieval.keep,
        qscore=stages.qscore.keep,
        prerank=stages.prerank.keep,
        finerank=stages.finerank.keep,
        interests=stages.retrieval.interests,
        per_interest=stages.retrieval.per_interest,
    )
    trained = Trained(data, *(open_checkpoint(each) for each in made_of))
    folder, _ = assemble(trained, root, name, sizes, users=0, stored=stages.prerank.vectors)
    return folder
