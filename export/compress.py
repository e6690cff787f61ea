"""`adrank compress`: a checkpoint and a recipe -> a smaller checkpoint, every step measured. Or a target, for which a
recipe is searched."""

import argparse
import importlib
import shutil
import sys
from pathlib import Path

import yaml
from tqdm import tqdm

from export.certify import certify
from models.checkpoint import Checkpoint, open_checkpoint, write_json
from models.compression.pipeline import Compressed, compress
from models.compression.recipe import read_recipe
from models.compression.report import flat, table
from models.compression.search import Search, best_of, line, search
from models.compression.target import read_target
from models.compression.teachers import open_teachers
from models.config import ConfigError
from models.data.batches import count
from models.data.prepared import PreparedData, find_prepared
from models.data.spec import DataError
from models.labels import labelled
from models.numerics import at_least, computing
from models.options import file_to_write
from models.training import TrainingError

TRIALS, SURVIVORS, TUNINGS = 40, 6, 10


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank compress",
        description="Make a trained network smaller, by the steps of a recipe. Writes a new checkpoint, which "
        "evaluate, calibrate and export take like any other, and leaves the one it starts from as it is. With a "
        "target instead of a recipe, one is searched. An interrupted run continues where it stopped when the same "
        "command is given again.",
    )
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder that `adrank train` wrote")
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--recipe", type=Path, metavar="FILE.yaml", help="YAML of steps, e.g. models/configs/recipes/*")
    what.add_argument(
        "--target",
        metavar="TEXT",
        help='what a recipe is searched for, as "bytes<=0.2 macs<=0.125 dgauc>=0": bytes, macs and parameters are '
        "shares of the original's, dauc, dgauc and dlogloss differences on the validation split",
    )
    p.add_argument(
        "--prepared",
        "--data",
        type=Path,
        metavar="DIR",
        default=Path("artifacts/data"),
        help="prepared data, or a folder of them (default artifacts/data)",
    )
    p.add_argument(
        "--teacher",
        type=Path,
        nargs="+",
        metavar="CHECKPOINT",
        default=[],
        help="fine-tuning with a teacher learns from the mean of the logits of these, which were trained on the same "
        "data, e.g. with other seeds (default: from the original)",
    )
    p.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: CHECKPOINT-RECIPE, beside it)")
    p.add_argument(
        "--seed", type=at_least(0), metavar="N", default=1, help="of fine-tuning and calibration (default 1)"
    )
    p.add_argument(
        "--trials",
        type=at_least(1),
        metavar="N",
        default=TRIALS,
        help=f"with --target: combinations that are judged without fine-tuning (default {TRIALS})",
    )
    p.add_argument(
        "--survivors",
        type=at_least(1),
        metavar="N",
        default=SURVIVORS,
        help=f"with --target: the best of them, which are fine-tuned (default {SURVIVORS})",
    )
    p.add_argument(
        "--tunings",
        type=at_least(1),
        metavar="N",
        default=TUNINGS,
        help=f"with --target: fine-tunings in all; beyond one each, the best get other settings (default {TUNINGS})",
    )
    p.add_argument("--fresh", action="store_true", help="with --target: forget an earlier search")
    p.add_argument("--threads", type=at_least(1), metavar="N", default=2, help="torch threads (default 2)")
    p.add_argument("--json", type=file_to_write, metavar="FILE", help="write what was measured as flat JSON")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def main(argv: list[str]) -> int:
    """Exit code 0, 1 when a search does not reach its target, 2 for bad input, 130 when interrupted."""
    options = parser().parse_args(argv)
    try:
        with computing(options.threads):
            return searched(options) if options.target is not None else by_recipe(options)
    except (ConfigError, DataError, TrainingError) as error:
        print(f"adrank compress: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adrank compress: interrupted; the same command continues from here", file=sys.stderr)
        return 130


def by_recipe(options: argparse.Namespace) -> int:
    """Take the steps of a recipe."""
    recipe = read_recipe(options.recipe)
    checkpoint = open_checkpoint(options.checkpoint)
    data = labelled(checkpoint.config, find_prepared(options.prepared, checkpoint.data_fingerprint))
    out = options.out or checkpoint.folder.with_name(f"{checkpoint.folder.name}-{recipe.name}")
    teachers = open_teachers(options.teacher, checkpoint)
    found = compress(checkpoint, recipe, data, out, options.seed, progress=not options.quiet, teachers=teachers)
    report(found, checkpoint, out, data, options.json)
    return 0


def searched(options: argparse.Namespace) -> int:
    """Search a recipe; the best candidate's checkpoint gets a certificate."""
    target = read_target(options.target)
    checkpoint = open_checkpoint(options.checkpoint)
    data = labelled(checkpoint.config, find_prepared(options.prepared, checkpoint.data_fingerprint))
    checkpoint.require_same_data(data)
    out = options.out or checkpoint.folder.with_name(f"{checkpoint.folder.name}-search")
    if options.fresh and (out / "study.sqlite").exists():
        shutil.rmtree(out)
    teachers = open_teachers(options.teacher, checkpoint)
    wanted = Search(
        checkpoint, data, target, options.seed, options.trials, options.survivors, options.tunings, teachers
    )
    candidates = search(wanted, out, tqdm.write, progress=not options.quiet)
    drawing = importlib.import_module("export.front")  # only now: matplotlib comes with the extra [dev]
    found = drawing.measure(candidates, data)
    found.write(out)
    print("\n".join(found.lines(target)))
    best = best_of(candidates, target)
    content = best.found.record.recipe.model_dump(mode="json", exclude_defaults=True)
    path = out / "best.yaml"
    written = f"# adrank compress --target {options.target!r}: {line(best.figures)}\n"
    path.write_text(written + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120))
    print(f"{path}, {out / 'front.svg'}")
    report(best.found, checkpoint, best.folder, data, options.json)
    if missed := target.missed(best.figures):
        print(f"adrank compress: the best candidate misses {', '.join(missed)}", file=sys.stderr)
        return 1
    return 0


def report(found: Compressed, checkpoint: Checkpoint, out: Path, data: PreparedData, json: Path | None) -> None:
    """Print what was done; where there is a test split, prove it."""
    print(f"{out}\n{table(found.record.steps)}")
    figures = flat(found)
    if count(data, "test"):
        compressed = open_checkpoint(out)
        certificate = certify(found, compressed, checkpoint, data)
        compressed.certificate_file.write_text(certificate.model_dump_json(indent=1) + "\n")
        print("\n".join(certificate.lines()))
        figures |= certificate.figures()
    if json:
        write_json(json, figures)
