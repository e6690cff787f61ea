"""What the benchmarks of the closed loop serve: bundles of one simulated marketplace that differ in their fine-ranker.

good        a light DIN trained on the whole log
tenth       the same network trained on the last tenth of it
untrained   the same network as it is before its first step
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from export.assemble import FunnelSettings, Trained, assemble
from models.checkpoint import Checkpoint, begin, open_checkpoint, save_state, write_json
from models.config import TrainConfig, read_config
from models.data.batches import recent
from models.data.prepare import prepare
from models.data.prepared import PreparedData
from models.data.spec import read_spec
from models.marketplace.files import write_marketplace
from models.marketplace.spec import MarketplaceSpec
from models.networks.config import QscoreConfig
from models.networks.registry import build
from models.numerics import computing
from models.train import train_one

CONFIGS = Path(__file__).parent.parent / "models/configs"
SPEC = MarketplaceSpec(seed=7, ads=2_000, users=6_000, impressions=200_000, days=10)
QUICK = MarketplaceSpec(seed=7, ads=600, users=2_500, impressions=60_000, days=10)
TENTH = 0.1
BATCH = 1024
"""Of the DIN. Its own, so that figures of this benchmark stay comparable when the configuration is tuned anew."""
GOOD, SMALL, UNTRAINED = "good", "tenth", "untrained"


def make_bundles(
    spec: MarketplaceSpec, folder: Path, names: Sequence[str] = (GOOD, SMALL, UNTRAINED), epochs: int = 2
) -> Path:
    """Simulate, train and export; the folder of bundles. The marketplace is beside it, and so are the checkpoints."""
    market = folder / "market"
    write_marketplace(spec, market, lambda _: None)
    data = prepare(read_spec(market / "dataset.yaml"), market, folder / "data", progress=False)
    with computing(1):
        light = read_config(CONFIGS / "marketplace-rocket.yaml").model_copy(update={"rocket": None})
        fine = _retrained(light, epochs=epochs, batch_size=BATCH)
        qscore = _trained(read_config(CONFIGS / "marketplace-qscore.yaml"), data, folder / "qscore")
        dqm = _trained(_retrained(read_config(CONFIGS / "marketplace-dqm.yaml"), epochs=epochs), data, folder / "dqm")
        late = since(spec, TENTH)
        made: dict[str, Callable[[Path], Checkpoint]] = {
            GOOD: lambda out: _trained(fine, data, out),
            SMALL: lambda out: _trained(fine, recent(data, late), out),
            UNTRAINED: lambda out: _untrained(fine, data, out),
        }
        sizes = FunnelSettings(retrieval=spec.ads, qscore=spec.ads // 2, prerank=spec.ads // 10)
        for name in names:
            finerank = made[name](folder / name)
            # Which rows a network saw does not change what ids mean: the bundle is of the same data.
            assemble(Trained(replace(data, since=None), finerank, dqm, qscore), folder / "bundles", name, sizes)
    return folder / "bundles"


def _retrained(config: TrainConfig, **training: int) -> TrainConfig:
    return config.model_copy(update={"training": config.training.model_copy(update=training)})


def _trained(config: TrainConfig, data: PreparedData, folder: Path) -> Checkpoint:
    train_one(config, data, folder, seed=1, progress=False)
    return open_checkpoint(folder)


def _untrained(config: TrainConfig, data: PreparedData, folder: Path) -> Checkpoint:
    """A checkpoint of the weights that training would start from."""
    assert not isinstance(config.model, QscoreConfig)
    torch.manual_seed(1)
    begin(folder, config, data, seed=1)
    save_state(folder / "best.pt", build(config.model, data.schema).state_dict())
    write_json(folder / "metrics.json", {})
    return open_checkpoint(folder)


def since(spec: MarketplaceSpec, share: float) -> int:
    """The time from which on the last `share` of the training split lies; rows come evenly over the days."""
    day_ms = 86_400_000
    train_ms = 0.8 * spec.days * day_ms
    return int(spec.start_ms + (1 - share) * train_ms)
