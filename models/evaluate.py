"""`adrank evaluate`: metrics of a checkpoint, on request for each value of a context field or for ads by how often
training showed them, and with --funnel what the stages before the fine-ranker lose."""

import argparse
import sys
from pathlib import Path

import torch

from models import breakdown, cold_ads, prerankers
from models.checkpoint import Checkpoint, open_checkpoint, write_json
from models.config import ConfigError
from models.data.batches import batches
from models.data.prepared import PreparedData, find_prepared
from models.data.spec import DataError
from models.evaluation import BATCH, Scorer, evaluate, network_scorer, table_scorer
from models.funnel import FunnelSizes, measure_funnel
from models.labels import labelled, prefix_of
from models.networks.cold import Cold
from models.networks.config import QscoreConfig
from models.numerics import at_least, computing
from models.options import file_to_write
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
    p.add_argument(
        "--prerankers",
        type=Path,
        metavar="CHECKPOINT",
        nargs="+",
        default=[],
        help="with --funnel: compare what may order the ads after Qscore: Qscore, DQM, these, and the fine-ranker",
    )
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
    p.add_argument("--by", metavar="FIELD", help="also for each value of a categorical context field")
    p.add_argument(
        "--cold", action="store_true", help="also for ads that training showed never, 1-9, 10-99 and 100 or more times"
    )
    p.add_argument("--gates", action="store_true", help="also the mean gate of each field, of a COLD")
    p.add_argument("--threads", type=at_least(1), metavar="N", default=2, help="torch threads (default 2)")
    p.add_argument("--json", type=file_to_write, metavar="FILE", help="write the metrics as flat JSON")
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
        data = labelled(checkpoint.config, find_prepared(options.prepared, checkpoint.data_fingerprint))
        prefix = prefix_of(checkpoint.config)
        found = evaluate(scorer(checkpoint), data, options.split)
        metrics = {f"{prefix}{options.split}.{name}": value for name, value in found.items()}
        print(table(metrics, prefix))
        if options.by:
            metrics |= of_values(checkpoint, data, options)
        if options.cold:
            metrics |= of_exposure(checkpoint, data, options.split)
        if options.gates:
            metrics |= gates(checkpoint, data, options.split)
        if options.funnel:
            metrics |= of_funnel(checkpoint, data, options)
        elif options.prerankers:
            raise ConfigError("--prerankers order the ads of a funnel: --funnel DQM QSCORE is missing")
    except (ConfigError, DataError) as error:
        print(f"adrank evaluate: {error}", file=sys.stderr)
        return 2
    if options.json:
        write_json(options.json, metrics)
    return 0


def of_values(checkpoint: Checkpoint, data: PreparedData, options: argparse.Namespace) -> dict[str, float]:
    """--by: SPLIT.FIELD.VALUE.auc and so on; printed too."""
    found = breakdown.by_value(scorer(checkpoint), data, options.split, options.by)
    print(breakdown.table(options.by, found))
    start = f"{prefix_of(checkpoint.config)}{options.split}.{options.by}"
    return {f"{start}.{value}.{name}": number for value, of_it in found.items() for name, number in of_it.items()}


def of_exposure(checkpoint: Checkpoint, data: PreparedData, split: str) -> dict[str, float]:
    """--cold: SPLIT.shown.GROUP.auc and so on; printed too."""
    found = cold_ads.by_exposure(scorer(checkpoint), data, split)
    print(breakdown.table("shown", found))
    return {f"{split}.shown.{group}.{name}": number for group, of_it in found.items() for name, number in of_it.items()}


def gates(checkpoint: Checkpoint, data: PreparedData, split: str) -> dict[str, float]:
    """--gates: SPLIT.gate.FIELD, the mean over the split's impressions; printed too. ConfigError unless of a COLD."""
    network = checkpoint.network()
    if not isinstance(network, Cold):
        raise ConfigError(f"{checkpoint.folder}: a {checkpoint.config.model.kind} has no gates, a cold has")
    rows, sums = 0, dict.fromkeys(network.names, 0.0)
    with torch.inference_mode():
        for batch in batches(data, split, BATCH):
            rows += len(batch.labels)
            for name, mean in network.importance(batch).items():
                sums[name] += mean * len(batch.labels)
    found = {f"{split}.gate.{name}": total / rows for name, total in sums.items()}
    width = max(map(len, found))
    print("\n".join(f"  {name.ljust(width)} {mean:.4f}" for name, mean in sorted(found.items(), key=lambda e: -e[1])))
    return found


def of_funnel(checkpoint: Checkpoint, data: PreparedData, options: argparse.Namespace) -> dict[str, float]:
    """--funnel, and --prerankers in it; printed too."""
    dqm, qscore = (open_checkpoint(folder) for folder in options.funnel)
    for each in (dqm, qscore):
        each.require_same_data(data)
    sizes = FunnelSizes(options.retrieval, options.qscore, options.prerank)
    others = [open_checkpoint(folder) for folder in options.prerankers]
    rivals = prerankers.prerankers([qscore, dqm, *others, checkpoint], data) if others else {}
    found = measure_funnel(checkpoint, dqm, qscore, data, options.split, sizes, options.requests, rivals=rivals)
    usual = {name: value for name, value in found.items() if name.count(".") == 1}
    print("\n".join(f"  {name.ljust(34)} {value:.4f}" for name, value in usual.items()))
    if rivals:
        print(prerankers.table(list(rivals), found))
    return found


def scorer(checkpoint: Checkpoint) -> Scorer:
    """What scores batches for this checkpoint."""
    if isinstance(checkpoint.config.model, QscoreConfig):
        return table_scorer(checkpoint.qscore().scores)
    return network_scorer(checkpoint.network())
