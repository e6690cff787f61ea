"""`adrank compress`: a checkpoint and a recipe -> a smaller checkpoint, every step measured."""

import argparse
import sys
from pathlib import Path

from export.certify import certify
from models.checkpoint import open_checkpoint, write_json
from models.compression.pipeline import compress
from models.compression.recipe import read_recipe
from models.compression.report import flat, table
from models.config import ConfigError
from models.data.batches import count
from models.data.prepared import find_prepared
from models.data.spec import DataError
from models.numerics import at_least, computing
from models.training import TrainingError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank compress",
        description="Make a trained network smaller, by the steps of a recipe. Writes a new checkpoint, which "
        "evaluate, calibrate and export take like any other, and leaves the one it starts from as it is. An "
        "interrupted run continues where it stopped when the same command is given again.",
    )
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder that `adrank train` wrote")
    p.add_argument(
        "--recipe", type=Path, metavar="FILE.yaml", required=True, help="YAML of steps, e.g. models/configs/recipes/*"
    )
    p.add_argument(
        "--prepared",
        "--data",
        type=Path,
        metavar="DIR",
        default=Path("artifacts/data"),
        help="prepared data, or a folder of them (default artifacts/data)",
    )
    p.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: CHECKPOINT-RECIPE, beside it)")
    p.add_argument(
        "--seed", type=at_least(0), metavar="N", default=1, help="of fine-tuning and calibration (default 1)"
    )
    p.add_argument("--threads", type=at_least(1), metavar="N", default=2, help="torch threads (default 2)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write what was measured as flat JSON")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def main(argv: list[str]) -> int:
    """Exit code 0, 2 for bad input, 130 when interrupted."""
    options = parser().parse_args(argv)
    with computing(options.threads):
        return run(options)


def run(options: argparse.Namespace) -> int:
    """The command with its options read."""
    try:
        recipe = read_recipe(options.recipe)
        checkpoint = open_checkpoint(options.checkpoint)
        data = find_prepared(options.prepared, checkpoint.data_fingerprint)
        out = options.out or checkpoint.folder.with_name(f"{checkpoint.folder.name}-{recipe.name}")
        found = compress(checkpoint, recipe, data, out, options.seed, progress=not options.quiet)
        print(f"{out}\n{table(found.record.steps)}")
        figures = flat(found)
        if count(data, "test"):
            compressed = open_checkpoint(out)
            certificate = certify(found, compressed, checkpoint, data)
            compressed.certificate_file.write_text(certificate.model_dump_json(indent=1) + "\n")
            print("\n".join(certificate.lines()))
            figures |= certificate.figures()
    except (ConfigError, DataError, TrainingError) as error:
        print(f"adrank compress: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adrank compress: interrupted; the same command continues from here", file=sys.stderr)
        return 130
    if options.json:
        write_json(options.json, figures)
    return 0
