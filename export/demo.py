"""`adrank demo`: the whole offline path on simulated data, from a marketplace to a bundle that can be served.

marketplace -> prepare -> train Qscore, DQM, a light DIN by Rocket Launching -> export
"""

import argparse
import sys
import time
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from export.assemble import FunnelSettings, Target, Trained, assemble
from export.parity import ParityError
from models.checkpoint import open_checkpoint
from models.config import ConfigError, TrainConfig, read_config
from models.data.prepare import ensure_prepared
from models.data.spec import DataError, complaints, read_spec
from models.marketplace.files import write_marketplace
from models.marketplace.spec import MarketplaceSpec
from models.numerics import at_least, computing
from models.train import table, train_one
from models.training import TrainingError

CONFIGS = Path(__file__).parent.parent / "models/configs"
MODELS = ("qscore", "dqm", "rocket")
"""Configurations models/configs/marketplace-*.yaml. The light DIN of the rocket is served; its booster stays behind."""
SIZES = FunnelSettings(retrieval=3_000, qscore=1_000, prerank=300)
"""For a catalogue of 5,000 ads: every stage of the funnel has something to leave out."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank demo",
        description="Simulate a marketplace, train Qscore, DQM and, by Rocket Launching, a light DIN on its log, and "
        "export the demo bundle. "
        "Everything in it is simulated; the truth is known, so the best possible AUC is printed beside the models'.",
    )
    p.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("artifacts"),
        help="folder for data, checkpoints and the bundle (default artifacts)",
    )
    p.add_argument("--id", metavar="NAME", default="demo", help="name of the bundle (default demo)")
    p.add_argument("--ads", type=int, metavar="N", default=5_000, help="ads in the marketplace (default 5000)")
    p.add_argument("--users", type=int, metavar="N", default=5_000, help="users (default 5000)")
    p.add_argument(
        "--impressions", type=int, metavar="N", default=400_000, help="impressions in the log (default 400000)"
    )
    p.add_argument(
        "--targeted",
        type=float,
        metavar="SHARE",
        default=0.2,
        help="share of the ads that may be shown in some scenes and regions only (default 0.2)",
    )
    p.add_argument(
        "--seed", type=at_least(0), metavar="N", default=1, help="of the simulation and of training (default 1)"
    )
    p.add_argument("--threads", type=at_least(1), metavar="N", default=2, help="torch threads (default 2)")
    return p


def main(argv: list[str]) -> int:
    """Exit code 0; 2 when the bundle exists already or a size makes no sense; 130 when interrupted."""
    options = parser().parse_args(argv)
    started = time.monotonic()
    try:
        with computing(options.threads):
            spec = MarketplaceSpec(
                ads=options.ads,
                users=options.users,
                impressions=options.impressions,
                targeted=options.targeted,
                seed=options.seed,
            )
            folder = build(options.out, options.id, spec)
    except ValidationError as error:
        print(f"adrank demo: {complaints(error)}", file=sys.stderr)
        return 2
    except (FileExistsError, ConfigError, DataError, TrainingError, ParityError) as error:
        print(f"adrank demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adrank demo: interrupted; the same command continues from here", file=sys.stderr)
        return 130
    print(f"{folder} made in {time.monotonic() - started:.0f} s; `adrank serve --bundle {folder}` serves it")
    return 0


def build(out: Path, bundle_id: str, spec: MarketplaceSpec, *, progress: bool = True) -> Path:
    """The bundle folder. Each step takes up what an interrupted run left."""
    target = out / "bundles" / Target(bundle_id=bundle_id).bundle_id
    if target.exists():
        raise FileExistsError(f"{target} exists, and bundles are never changed: remove it, or use --id")
    targeted = f"-targeted{spec.targeted:g}" if spec.targeted else ""
    name = f"marketplace-{spec.ads}-{spec.users}-{spec.impressions}{targeted}-seed{spec.seed}"
    raw = out / "marketplace" / name
    if not raw.exists():
        with tqdm(total=spec.impressions, desc="simulating", unit="row", unit_scale=True, disable=not progress) as bar:
            write_marketplace(spec, raw, bar.update)
    data = ensure_prepared(read_spec(raw / "dataset.yaml"), raw, out / "data", progress=progress)
    folders = {}
    for kind in MODELS:
        config: TrainConfig = read_config(CONFIGS / f"marketplace-{kind}.yaml")
        folders[kind] = out / "checkpoints" / f"{name}-{kind}"
        metrics = train_one(config, data, folders[kind], spec.seed, progress=progress)
        if progress:
            print(f"{kind}\n{table(metrics)}")
    trained = Trained(data, *(open_checkpoint(folders[kind]) for kind in ("rocket", "dqm", "qscore")))
    folder, _ = assemble(trained, target.parent, bundle_id, SIZES)
    return folder
