"""The standard work of all benchmarks: DIN over item and category, 32 each, 50 behaviours, network 200-80.

    paper   activation unit 80-40
    light   activation unit 16-8

Weights are random, their sizes as after training; speed does not depend on them. Dice gets statistics and slopes that
differ from unit to unit, so that nothing folds away which would not fold in a trained network.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.tiled import tiled
from bundle.golden import Common
from bundle.schema import FIRST_KNOWN, FeatureSchema, FieldSpec, HistorySpec, Kind, Side
from models.networks.config import DinConfig, DqmConfig
from models.networks.dice import Dice
from models.networks.din import Din
from models.networks.dqm import Dqm

UNITS = {"paper": (80, 40), "light": (16, 8)}
HISTORY = 50
EMBEDDING = 32
NETWORK = (200, 80)
CATEGORIES = 1_000
AGES, CITIES = 20, 500
MOST_ITEMS = 1_000_000
"""Items with an embedding of their own, the rest are unknown to the network: 10^7 rows of 32 floats are 1.3 GB."""
HISTORY_NAME = "clicks"


def work_schema(ads: int) -> FeatureSchema:
    """User vector 64 (age, city), ad vector 64 (item, category), a history of 50 ads."""
    return FeatureSchema(
        user_key="user_id",
        ad_key="item",
        user=Side(fields=(_field("age", AGES), _field("city", CITIES))),
        ad=Side(fields=(_field("item", min(ads, MOST_ITEMS)), _field("category", CATEGORIES))),
        histories=(HistorySpec(name=HISTORY_NAME, fields=("item", "category"), max_length=HISTORY),),
    )


def make_din(schema: FeatureSchema, unit: str, attention: str = "sum", activation: str = "dice", seed: int = 0) -> Din:
    """A DIN with activation unit `unit` of UNITS, in evaluation mode."""
    config = DinConfig.model_validate(
        {
            "kind": "din",
            "embedding": EMBEDDING,
            "attention": attention,
            "attention_hidden": UNITS[unit],
            "attention_activation": activation,
            "hidden": NETWORK,
            "activation": activation,
        }
    )
    torch.manual_seed(seed)
    return scattered(Din(config, schema).eval())


def make_dqm(schema: FeatureSchema, seed: int = 0) -> Dqm:
    """A DQM of 32 dimensions, in evaluation mode."""
    torch.manual_seed(seed)
    return Dqm(DqmConfig(kind="dqm", embedding=16, dimension=32, hidden=(128,)), schema).eval()


def scattered(network: Din) -> Din:
    """`network` with Dice statistics and slopes drawn at random."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Dice):
                module.mean.normal_(0.0, 0.1)
                module.variance.uniform_(0.01, 0.5)
                module.alpha.uniform_(-0.2, 0.3)
    return network


@dataclass(frozen=True, slots=True)
class Candidates:
    """One request of the standard work, encoded."""

    common: Common
    ads: npt.NDArray[np.int64]
    """int64[N, 2]"""

    def feeds(self) -> dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float32]]:
        """Inputs of the serving graph."""
        feeds = self.common.feeds()
        return {name: feeds[name] for name in ("user", f"history_{HISTORY_NAME}")} | {"ads": self.ads}

    def tiled(self) -> dict[str, npt.NDArray[np.int64] | npt.NDArray[np.float32]]:
        """Inputs of the plain export: the user repeated for every candidate."""
        return tiled(self.feeds())


def make_request(schema: FeatureSchema, candidates: int, seed: int = 0, history: int = HISTORY) -> Candidates:
    """A random user with `history` behaviours and random candidates."""
    random = np.random.default_rng(seed)
    sizes = [field.size for field in schema.ad.id_fields]
    common = Common(
        user=np.array([random.integers(FIRST_KNOWN, field.size) for field in schema.user.id_fields]),
        user_numbers=np.zeros(0, np.float32),
        context=np.zeros(0, np.int64),
        context_numbers=np.zeros(0, np.float32),
        histories={HISTORY_NAME: _ids(random, history, sizes)},
    )
    return Candidates(common, _ids(random, candidates, sizes))


def multiply_adds(unit: str, candidates: int, history: int = HISTORY) -> int:
    """Those that the scores of one request need once the user's side is computed once (models of this module only).

    Per candidate and behaviour: d·h for the first layer, h·g, g, and one for the interest; its d dimensions enter the
    network's first layer as 200 numbers a behaviour, the ad's 64 and everything after as they stand.
    """
    h, g = UNITS[unit]
    d = 2 * EMBEDDING
    first, second = NETWORK
    per_candidate = history * (d * h + h * g + g + first) + d * first + first * second + second
    return candidates * per_candidate


def _field(name: str, values: int) -> FieldSpec:
    return FieldSpec(name=name, kind=Kind.CATEGORICAL, vocabulary=name, size=values + FIRST_KNOWN)


def _ids(random: np.random.Generator, n: int, sizes: list[int]) -> npt.NDArray[np.int64]:
    return np.stack([random.integers(FIRST_KNOWN, size, n) for size in sizes], axis=1)
