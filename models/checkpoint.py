"""What training leaves on disk, without pickled code: weights, configuration, schema and metrics.

CHECKPOINT/config.json   the TrainConfig          CHECKPOINT/schema.json   the FeatureSchema it was built for
CHECKPOINT/best.pt       state_dict of the best evaluation      (qscore: qscore.npz; a rocket's booster: booster.pt)
CHECKPOINT/last.pt       network, optimiser, averages and random state, to resume after an interruption
CHECKPOINT/vocabulary/   NAME.npy, the values of the ids, so that training can continue when the data are gone
CHECKPOINT/metrics.json  flat numbers                               CHECKPOINT/calibration.json  of `adrank calibrate`
CHECKPOINT/certificate.json  of `adrank compress`, with compression.json
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from pydantic import ValidationError

from bundle.calibration import Calibration
from bundle.certificate import Certificate
from bundle.schema import FeatureSchema
from models.config import ConfigError, TrainConfig
from models.data.prepared import PreparedData
from models.data.spec import describe
from models.networks.config import QscoreConfig
from models.networks.network import Network
from models.networks.registry import build
from models.qscore import Qscore


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder, opened."""

    folder: Path
    config: TrainConfig
    schema: FeatureSchema
    data_fingerprint: str
    seed: int
    metrics: dict[str, float]

    def network(self) -> Network:
        """The trained network, in evaluation mode. ConfigError when this is a Qscore, or best.pt is not its weights."""
        if isinstance(self.config.model, QscoreConfig):
            raise ConfigError(f"{self.folder}: a Qscore is a table, it has no network")
        network = build(self.config.model, self.schema)
        path = self.folder / "best.pt"
        try:
            network.load_state_dict(torch.load(path, weights_only=True))
        except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            raise ConfigError(f"{path}: not the weights of {self.config.name!r}: {first_line(error)}") from error
        return network.eval()

    def qscore(self) -> Qscore:
        """The Qscore table. ConfigError when this is a network."""
        if not isinstance(self.config.model, QscoreConfig):
            raise ConfigError(f"{self.folder}: model {self.config.model.kind!r} is not a Qscore")
        path = self.folder / "qscore.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return Qscore(stored["scores"], float(stored["mean"]), float(stored["strength"]))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise ConfigError(f"{path}: not a table of Qscores: {first_line(error)}") from error

    @property
    def calibration_file(self) -> Path:
        """Where `adrank calibrate` leaves its correction."""
        return self.folder / "calibration.json"

    def calibration(self) -> Calibration | None:
        """How its logits are to be corrected; None: not at all. ConfigError when the file is not one."""
        try:
            return Calibration.model_validate_json(self.calibration_file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ConfigError(describe(self.calibration_file, error)) from error

    @property
    def certificate_file(self) -> Path:
        """Where `adrank compress` leaves what it proved."""
        return self.folder / "certificate.json"

    def certificate(self) -> Certificate | None:
        """What its network was measured to be worth against the one it was made from; None for one that was not
        compressed. ConfigError when the file is none, or is of other weights."""
        try:
            found = Certificate.model_validate_json(self.certificate_file.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise ConfigError(describe(self.certificate_file, error)) from error
        if found.weights != digest(self.folder / "best.pt"):
            raise ConfigError(
                f"{self.certificate_file} is of weights {found.weights[:12]}, best.pt is "
                f"{digest(self.folder / 'best.pt')[:12]}; `adrank compress` makes both"
            )
        return found

    def require_same_data(self, data: PreparedData) -> None:
        """ConfigError unless `data` is what this checkpoint was trained on."""
        if data.prepared.fingerprint != self.data_fingerprint:
            raise ConfigError(
                f"{self.folder} was trained on data {self.data_fingerprint[:12]}, {data.folder} is "
                f"{data.prepared.fingerprint[:12]}: ids would not mean the same"
            )


def begin(
    folder: Path, config: TrainConfig, data: PreparedData, seed: int, continued: Mapping[str, str] | None = None
) -> None:
    """Write what is known before the first step; `continued`: what the run goes on from (models/continuing.py)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.json").write_text(data.schema.model_dump_json(indent=1))
    (folder / "vocabulary").mkdir(exist_ok=True)
    for name, vocabulary in data.vocabularies.items():
        temporary = folder / "vocabulary.tmp.npy"
        vocabulary.save(temporary)
        temporary.replace(folder / "vocabulary" / f"{name}.npy")  # one that is mapped elsewhere stays whole there
    write_json(folder / "config.json", {**run_of(config, data, continued), "seed": seed})


def run_of(config: TrainConfig, data: PreparedData, continued: Mapping[str, str] | None) -> dict[str, Any]:
    """What tells a run apart from others in its folder."""
    return {
        "config": config.model_dump(mode="json"),
        "data": data.prepared.fingerprint,
        "since": data.since,
        "continued": None if continued is None else dict(continued),
    }


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint folder. ConfigError names the file that is missing or wrong."""
    path = folder / "config.json"
    try:
        head = json.loads(path.read_text())
        config, data, seed = TrainConfig.model_validate(head["config"]), str(head["data"]), int(head["seed"])
        path = folder / "schema.json"
        schema = FeatureSchema.model_validate_json(path.read_bytes())
        path = folder / "metrics.json"
        return Checkpoint(folder, config, schema, data, seed, json.loads(path.read_text()))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; `adrank train` writes it") from error
    except ValidationError as error:
        raise ConfigError(describe(path, error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not of a checkpoint: {error!r}") from error


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def first_line(error: Exception) -> str:
    """What an error says, without the pages that torch may add."""
    return str(error).partition("\n")[0]


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """torch.save that replaces the file in one step, so that an interruption leaves the old one."""
    temporary = path.with_suffix(".tmp")
    torch.save(dict(state), temporary)
    temporary.replace(path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Flat, sorted, readable JSON, replaced in one step. What is not finite (a GAUC of no user) is left out."""
    temporary = path.with_suffix(".tmp")
    said = {key: value for key, value in content.items() if not isinstance(value, float) or math.isfinite(value)}
    temporary.write_text(json.dumps(said, indent=1, sort_keys=True, allow_nan=False) + "\n")
    temporary.replace(path)
