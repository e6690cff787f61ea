"""`adrank evaluate`: metrics of a checkpoint, and with --funnel what the stages before the fine-ranker lose."""

import argparse
import sys
from pathlib import Path

from models.checkpoint import Checkpoint, open_checkpoint, write_json
from models.config import ConfigError
from models.data.prepared import find_prepared
from models.data.spec import DataError
from models.evaluation import Scorer, evaluate, network_scorer, table_scorer
from models.funnel import FunnelSizes, measure_funnel
from models.networks.config import QscoreConfig
from models.numerics import at_least, computing
from models.train import table


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank evaluate",
        description="AUC, GAUC, log loss and calibration of a checkpoint. With --funnel also: how many of the "
        "fine-ranker's top 10 over the whole catalogue survive Qscore and DQM, and the eCPM lost.",
    )
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder that `adrank train` wrote")
    p.add_argument(
        "--prepared",
        type=Path,
        metavar="DIR",
        default=Path("artifacts/data"),
        help="prepared data, or a folder of them (default artifacts/data)",
    )
    p.add_argument("--split", choices=("train", "valid", "test"), default="test", help="default test")
    p.add_argument("--funnel", type=Path, nargs=2, metavar=("DQM", "QSCORE"), help="checkpoints of the earlier stages")
    p.add_argument("--retrieval", type=int, metavar="N", default=100_000, help="ads kept by matching (default 100,000)")
    p.add_argument("--qscore", type=int, metavar="N", default=10_000, help="ads kept by Qscore (default 10,000)")
    p.add_argument("--prerank", type=int, metavar="N", default=1_000, help="ads kept by DQM (default 1,000)")
    p.add_argument(
        "--requests",
        type=int,
        metavar="N",
        default=200,
        help="requests of the split the funnel is measured on (default 200)",
    )
    p.add_argument("--threads", type=at_least(1), metavar="N", default=2, help="torch threads (default 2)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the metrics as flat JSON")
    return p


def main(argv: list[str]) -> int:
    """Exit code 0, or 2 for bad input."""
    options = parser().parse_args(argv)
    with computing(options.threads):
        return run(options)


def run(options: argparse.Namespace) -> int:
    """The command with its options read."""
    try:
        checkpoint = open_checkpoint(options.checkpoint)
        data = find_prepared(options.prepared, checkpoint.data_fingerprint)
        found = evaluate(scorer(checkpoint), data, options.split)
        metrics = {f"{options.split}.{name}": value for name, value in found.items()}
        print(table(metrics))
        if options.funnel:
            dqm, qscore = (open_checkpoint(folder) for folder in options.funnel)
            for each in (dqm, qscore):
                each.require_same_data(data)
            sizes = FunnelSizes(options.retrieval, options.qscore, options.prerank)
            funnel = measure_funnel(checkpoint, dqm, qscore, data, options.split, sizes, options.requests)
            print("\n".join(f"  {name.ljust(34)} {value:.4f}" for name, value in funnel.items()))
            metrics |= funnel
    except (ConfigError, DataError) as error:
        print(f"adrank evaluate: {error}", file=sys.stderr)
        return 2
    if options.json:
        write_json(options.json, metrics)
    return 0


def scorer(checkpoint: Checkpoint) -> Scorer:
    """What scores batches for this checkpoint."""
    if isinstance(checkpoint.config.model, QscoreConfig):
        return table_scorer(checkpoint.qscore().scores)
    return network_scorer(checkpoint.network())
