"""`adrank export`: checkpoints of DIN, DQM and Qscore -> one bundle, proved against torch."""

import argparse
import datetime
import sys
from pathlib import Path

from pydantic import ValidationError

from bundle.errors import BundleError
from export.assemble import FunnelSettings, Trained, assemble
from export.parity import TOLERANCE, ParityError
from models.checkpoint import open_checkpoint, write_json
from models.config import ConfigError
from models.data.prepared import find_prepared
from models.data.spec import DataError, complaints

SIZES = FunnelSettings()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank export",
        description="Turn trained checkpoints into a bundle that `adrank serve` loads. The ONNX graphs are compared "
        f"with torch on real requests; a difference above {TOLERANCE:g} in pCTR fails the export.",
    )
    p.add_argument("--din", type=Path, metavar="DIR", required=True, help="checkpoint of the fine-ranker")
    p.add_argument(
        "--dqm", type=Path, metavar="DIR", required=True, help="checkpoint of the pre-ranker, also the retrieval model"
    )
    p.add_argument("--qscore", type=Path, metavar="DIR", required=True, help="checkpoint of the Qscore")
    p.add_argument(
        "--prepared",
        type=Path,
        metavar="DIR",
        default=Path("artifacts/data"),
        help="prepared data, or a folder of them (default artifacts/data)",
    )
    p.add_argument("--out", type=Path, metavar="DIR", default=Path("artifacts/bundles"), help="folder of bundles")
    p.add_argument("--id", metavar="NAME", help="name of the bundle (default: the fine-ranker's name and the time)")
    p.add_argument(
        "--retrieval", type=int, metavar="N", default=SIZES.retrieval, help=f"ads kept by matching ({SIZES.retrieval})"
    )
    p.add_argument(
        "--keep-qscore", type=int, metavar="N", default=SIZES.qscore, help=f"ads kept by Qscore ({SIZES.qscore})"
    )
    p.add_argument("--prerank", type=int, metavar="N", default=SIZES.prerank, help=f"ads kept by DQM ({SIZES.prerank})")
    p.add_argument(
        "--users", type=int, metavar="N", help="carry the features of only so many demo users (default: all)"
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write the measured differences as flat JSON")
    return p


def main(argv: list[str]) -> int:
    """Exit code 0, 2 for bad input, 1 when the graphs do not compute what the models do."""
    options = parser().parse_args(argv)
    try:
        checkpoints = [open_checkpoint(folder) for folder in (options.din, options.dqm, options.qscore)]
        data = find_prepared(options.prepared, checkpoints[0].data_fingerprint)
        trained = Trained(data, *checkpoints)
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
        settings = FunnelSettings(retrieval=options.retrieval, qscore=options.keep_qscore, prerank=options.prerank)
        name = options.id or f"{trained.finerank.config.name}-{stamp}"
        folder, parity = assemble(trained, options.out, name, settings, users=options.users)
    except ValidationError as error:
        print(f"adrank export: {complaints(error)}", file=sys.stderr)
        return 2
    except (ConfigError, DataError, BundleError, FileExistsError, ValueError) as error:
        print(f"adrank export: {error}", file=sys.stderr)
        return 2
    except ParityError as error:
        print(f"adrank export: {error}", file=sys.stderr)
        return 1
    print(
        f"{folder}\n  torch = ONNX over {parity.requests} requests with {parity.candidates} candidates: "
        f"pCTR differs by at most {parity.pctr:.2g}, query vectors by {parity.query:.2g}"
    )
    if options.json:
        write_json(options.json, {"parity.pctr": parity.pctr, "parity.query": parity.query})
    return 0
