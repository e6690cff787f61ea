"""`adrank calibrate`: fit a correction of a checkpoint's probabilities on validation, keep it beside the weights."""

import argparse
import importlib
import sys
from pathlib import Path

from bundle.calibration import Calibration
from models.calibration import CalibrationError, calibrated, fit_isotonic, fit_platt, undo_downsampling
from models.checkpoint import open_checkpoint, write_json
from models.config import ConfigError
from models.data.batches import count
from models.data.prepared import find_prepared
from models.data.spec import DataError
from models.evaluate import scorer
from models.evaluation import Scored, score_split
from models.labels import labelled, prefix_of
from models.metrics import summary
from models.networks.config import QscoreConfig
from models.numerics import at_least, computing
from models.options import file_to_write

SHOWN = ("auc", "gauc", "logloss", "calibration", "ece")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank calibrate",
        description="Fit a correction of a checkpoint's probabilities on the validation split, show what it does on "
        "validation and test, and keep it in the checkpoint: bundles that are exported from it carry and apply it. No "
        "order of ads changes.",
    )
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder that `adrank train` wrote")
    p.add_argument(
        "--method",
        choices=("platt", "isotonic", "downsampling", "none"),
        default="platt",
        help="default platt; none removes an earlier correction",
    )
    p.add_argument(
        "--kept", type=float, metavar="SHARE", help="of non-clicks that training saw, for --method downsampling"
    )
    p.add_argument(
        "--prepared",
        type=Path,
        metavar="DIR",
        default=Path("artifacts/data"),
        help="prepared data, or a folder of them (default artifacts/data)",
    )
    p.add_argument("--threads", type=at_least(1), metavar="N", default=2, help="torch threads (default 2)")
    p.add_argument("--json", type=file_to_write, metavar="FILE", help="write the metrics before and after as flat JSON")
    p.add_argument(
        "--picture", type=file_to_write, metavar="FILE", help="draw reliability curves before and after, e.g. as SVG"
    )
    return p


def main(argv: list[str]) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parser().parse_args(argv)
    try:
        with computing(options.threads):
            return run(options)
    except (ConfigError, DataError, CalibrationError) as error:
        print(f"adrank calibrate: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """The command with its options read."""
    if (options.method == "downsampling") != (options.kept is not None):
        raise CalibrationError("--kept SHARE belongs to --method downsampling, and only there")
    checkpoint = open_checkpoint(options.checkpoint)
    if isinstance(checkpoint.config.model, QscoreConfig):
        raise ConfigError(f"{options.checkpoint}: a Qscore is a smoothed rate already, only networks are calibrated")
    if options.method == "none":
        checkpoint.calibration_file.unlink(missing_ok=True)
        print(f"{options.checkpoint}: no correction")
        return 0
    data = labelled(checkpoint.config, find_prepared(options.prepared, checkpoint.data_fingerprint))
    score = scorer(checkpoint)
    splits = {split: score_split(score, data, split) for split in ("valid", "test") if count(data, split)}
    if "valid" not in splits:
        raise DataError(f"{data.folder}: split 'valid' is empty, there is nothing to calibrate on")
    found = fit(options.method, splits["valid"], options.kept)
    figures: dict[str, float] = {}
    print("              " + "".join(name.rjust(13) for name in SHOWN))
    for split, scored in splits.items():
        for when, scores in (("before", scored.scores), ("after", calibrated(found, scored.scores))):
            metrics = summary(scored.labels, scores, scored.users)
            print(f"  {split.ljust(5)} {when.ljust(6)}" + "".join(f"{metrics[name]:13.4f}" for name in SHOWN))
            figures |= {f"{prefix_of(checkpoint.config)}{split}.{when}.{name}": metrics[name] for name in SHOWN}
    checkpoint.calibration_file.write_text(found.model_dump_json(indent=1) + "\n")
    print(checkpoint.calibration_file)
    if options.json:
        write_json(options.json, figures)
    if options.picture:
        drawing = importlib.import_module("models.reliability")  # only now: matplotlib comes with the extra [dev]
        drawing.draw(splits, found, checkpoint.config.name, options.picture)
    return 0


def fit(method: str, valid: Scored, kept: float | None) -> Calibration:
    """The correction, from the validation split's scores."""
    if method == "downsampling":
        assert kept is not None
        return undo_downsampling(kept)
    return (fit_platt if method == "platt" else fit_isotonic)(valid.labels, valid.scores)
