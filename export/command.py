"""`adrank export`: checkpoints of a fine-ranker, a pre-ranker and Qscore -> one bundle, proved against torch."""

import argparse
import datetime
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from bundle.errors import BundleError
from bundle.ladder import table
from bundle.manifest import GraphSpec, read_manifest
from bundle.precision import Asked, Deviation
from bundle.rounding import Coded
from export.assemble import FunnelSettings, Trained, assemble
from export.deviation import PrecisionError
from export.ladder import LadderError
from export.parity import TOLERANCE, ParityError
from models.checkpoint import open_checkpoint, write_json
from models.config import ConfigError
from models.data.prepared import find_prepared
from models.data.spec import DataError, complaints
from models.options import file_to_write, folder_to_write

SIZES = FunnelSettings()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank export",
        description="Turn trained checkpoints into a bundle that `adrank serve` loads. The ONNX graphs are compared "
        f"with torch on real requests; a difference above {TOLERANCE:g} in pCTR fails the export.",
    )
    p.add_argument(
        "--finerank", type=Path, metavar="DIR", required=True, help="checkpoint of the fine-ranker: any network"
    )
    p.add_argument(
        "--prerank",
        type=Path,
        metavar="DIR",
        required=True,
        help="checkpoint of the pre-ranker, which retrieves too: a network of two towers",
    )
    p.add_argument("--qscore", type=Path, metavar="DIR", required=True, help="checkpoint of the Qscore")
    p.add_argument(
        "--rung",
        type=rung,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="checkpoint of a further fine-ranker, cheaper than the one before it, which the service may take instead "
        "when time is short; may be given several times, the dearest first",
    )
    p.add_argument(
        "--prepared",
        type=Path,
        metavar="DIR",
        default=Path("artifacts/data"),
        help="prepared data, or a folder of them (default artifacts/data)",
    )
    p.add_argument(
        "--out", type=folder_to_write, metavar="DIR", default=Path("artifacts/bundles"), help="folder of bundles"
    )
    p.add_argument("--id", metavar="NAME", help="name of the bundle (default: the fine-ranker's name and the time)")
    for stage in ("retrieval", "qscore", "prerank"):
        size = getattr(SIZES, stage)
        p.add_argument(
            f"--keep-{stage}", type=int, metavar="N", default=size, help=f"ads that {stage} keeps (default {size:,})"
        )
    p.add_argument(
        "--users", type=int, metavar="N", help="carry the features of only so many demo users (default: all)"
    )
    p.add_argument(
        "--precision",
        choices=get_args(Asked),
        default="fp32",
        help="fp32: the graphs as they were trained (default). int8: embedding tables in int8, and the matrix products "
        "that are faster so on this machine. fp16: whole graphs, for GPU providers. auto: tries tables in fp16 and "
        "int8 and products in int8, takes what is smaller or faster here",
    )
    p.add_argument(
        "--ad-vectors",
        choices=get_args(Coded),
        default="int8",
        help="what the vectors of the ads are stored in (default int8). int4: half of the bytes, coarser",
    )
    p.add_argument("--json", type=file_to_write, metavar="FILE", help="write the measured differences as flat JSON")
    return p


def rung(text: str) -> tuple[str, Path]:
    """NAME=DIR."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=DIR")
    return name, Path(folder)


def main(argv: list[str]) -> int:
    """Exit code 0, 2 for bad input, 1 when the graphs do not compute what the models do."""
    options = parser().parse_args(argv)
    try:
        checkpoints = [open_checkpoint(folder) for folder in (options.finerank, options.prerank, options.qscore)]
        if twice := [name for i, (name, _) in enumerate(options.rung) if name in dict(options.rung[:i])]:
            raise LadderError(f"two rungs are called {twice[0]!r}; every rung needs a name of its own")
        ladder = {name: open_checkpoint(folder) for name, folder in options.rung}
        data = find_prepared(options.prepared, checkpoints[0].data_fingerprint)
        trained = Trained(data, *checkpoints, ladder=ladder)
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        settings = FunnelSettings(
            retrieval=options.keep_retrieval, qscore=options.keep_qscore, prerank=options.keep_prerank
        )
        name = options.id or f"{trained.finerank.config.name}-{stamp}"
        folder, parity = assemble(
            trained,
            options.out,
            name,
            settings,
            users=options.users,
            precision=options.precision,
            stored=options.ad_vectors,
        )
    except ValidationError as error:
        print(f"adrank export: {complaints(error)}", file=sys.stderr)
        return 2
    except (ConfigError, DataError, BundleError, FileExistsError, ValueError) as error:
        print(f"adrank export: {error}", file=sys.stderr)
        return 2
    except (ParityError, PrecisionError) as error:
        print(f"adrank export: {error}", file=sys.stderr)
        return 1
    print(
        f"{folder}\n  torch = ONNX over {parity.requests} requests with {parity.candidates} candidates: "
        f"pCTR differs by at most {parity.pctr:.2g}, query vectors by {parity.query:.2g}"
    )
    stages = read_manifest(folder).stages
    graphs = {"query": stages.prerank.query, "finerank": stages.finerank.graph}
    graphs |= {f"finerank.{each.name}": each.graph for each in stages.finerank.ladder}
    for line in chain(chain.from_iterable(map(described, graphs.values())), table(stages.finerank.rungs())):
        print(line)
    if options.json:
        figures = {"parity.pctr": parity.pctr, "parity.query": parity.query}
        for stage, graph in graphs.items():
            if found := graph.precision.deviation:
                figures |= {f"precision.{stage}.{key}": value for key, value in found.model_dump().items()}
        for name, _, worth in stages.finerank.rungs():
            figures |= {f"ladder.{name}.p50_ms": worth.p50_ms, f"ladder.{name}.multiply_adds": worth.work()}
        write_json(options.json, figures)
    return 0


def described(graph: GraphSpec) -> Iterator[str]:
    """What a graph is stored and computed in, how far that is from fp32, and what else was tried."""
    precision = graph.precision
    if precision.given:
        kept = ", ".join(f"{name} {stored}" for name, stored in sorted(precision.given.items()))
        yield f"  {graph.file}: tables as the network has them: {kept}"
    if precision.asked == "fp32":
        return
    dense = f"products in {precision.dense}" + (f" ({count})" if (count := len(precision.int8_nodes)) else "")
    yield f"  {graph.file}: tables in {precision.tables}, {dense}{_shown(precision.deviation)}"
    for trial in precision.trials:
        yield (
            f"    {'+' if trial.taken else '-'} {trial.what}: {trial.why}; {trial.bytes / 2**20:,.1f} MiB, "
            f"{trial.time_ratio:.2f} of the time{_shown(trial.deviation)}"
        )


def _shown(found: Deviation | None) -> str:
    if found is None:
        return ""
    return (
        f"; pCTR off by {found.pctr_share:.2%} on average and {found.pctr_max:.2g} at most, "
        f"{found.top10:.1%} of the top 10 kept"
    )
