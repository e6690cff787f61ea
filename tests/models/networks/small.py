"""One small configuration, or a few, of every network: what must hold of all of them is tested on these."""

import torch

from models.networks.config import (
    ColdConfig,
    DeepFmConfig,
    DicmConfig,
    DinConfig,
    DqmConfig,
    DssmConfig,
    FmConfig,
    FnnConfig,
    GwenConfig,
    LowRankConfig,
    LrConfig,
    MlrConfig,
    MtlConfig,
    NetworkConfig,
    PnnConfig,
    RelatedTask,
    TableConfig,
    WideDeepConfig,
)
from models.networks.dicm import Dicm
from models.networks.network import Network
from models.networks.registry import build
from tests.models.world import SCHEMA, image_vectors, shake

SMALL: dict[str, NetworkConfig] = {
    "dqm": DqmConfig(kind="dqm", embedding=4, dimension=5, hidden=(8,)),
    "gwen": GwenConfig(kind="gwen", embedding=4, hidden=(8, 4), position_bias=True),
    "fm": FmConfig(kind="fm", embedding=4, position_bias=True),
    "wide-deep": WideDeepConfig(
        kind="wide-deep",
        embedding=4,
        hidden=(8, 4),
        crosses=(
            ("context.tab", "ad.tags"),
            ("clicks.tags", "ad.tags"),
            ("ad.ad", "ad.price"),
            ("user.city", "clicks.ad"),
            ("user.city", "context.tab"),
        ),
        cross_rows=60,
    ),
    "fnn": FnnConfig(kind="fnn", embedding=4, hidden=(8, 4)),
    "pnn-inner": PnnConfig(kind="pnn", embedding=4, hidden=(8, 4), products="inner", position_bias=True),
    "pnn-outer": PnnConfig(kind="pnn", embedding=4, hidden=(8,), products="outer"),
    "deepfm": DeepFmConfig(kind="deepfm", embedding=4, hidden=(8, 4)),
    "din": DinConfig(kind="din", embedding=4, attention_hidden=(6, 3), hidden=(8, 4), position_bias=True),
    "din-low-rank": DinConfig(
        kind="din",
        embedding=4,
        attention_hidden=(6, 5),
        hidden=(8, 6),
        position_bias=True,
        low_rank={
            "attention.history_clicks.first": LowRankConfig(rank=3),
            "attention.history_clicks.second": LowRankConfig(rank=2, between="dice"),
            "mlp.layers.0": LowRankConfig(rank=3, between="prelu"),
            "mlp.layers.1": LowRankConfig(rank=2),
        },
    ),
    "deepfm-low-rank": DeepFmConfig(
        kind="deepfm", embedding=4, hidden=(8, 4), low_rank={"mlp.layers.0": LowRankConfig(rank=3)}
    ),
    "pnn-low-rank": PnnConfig(
        kind="pnn", embedding=4, hidden=(8, 4), low_rank={"fields": LowRankConfig(rank=3, between="dice")}
    ),
    "dqm-low-rank": DqmConfig(
        kind="dqm", embedding=4, dimension=5, hidden=(8,), low_rank={"user_tower.layers.0": LowRankConfig(rank=3)}
    ),
    "mtl-low-rank": MtlConfig(
        kind="mtl", embedding=4, scene="tab", shared=(8,), hidden=(4,), low_rank={"shared.0": LowRankConfig(rank=3)}
    ),
    "din-softmax": DinConfig(kind="din", embedding=4, attention="softmax", attention_hidden=(6, 3), hidden=(8, 4)),
    "din-int4": DinConfig(
        kind="din",
        embedding=5,
        attention_hidden=(6, 3),
        hidden=(8, 4),
        tables={"ad": TableConfig(values="int4"), "tags": TableConfig(values="int8")},
    ),
    "deepfm-int8": DeepFmConfig(
        kind="deepfm",
        embedding=6,
        hidden=(8, 4),
        tables={"ad": TableConfig(values="int8"), "city": TableConfig(values="fp16")},
    ),
    "lr": LrConfig(kind="lr", position_bias=True),
    "lr-no-history": LrConfig(kind="lr", histories=False),
    "lr-cascade": LrConfig(kind="lr", cascade=True),
    "mlr": MlrConfig(kind="mlr", pieces=3, position_bias=True),
    "mlr-prior": MlrConfig(kind="mlr", pieces=3, prior=True, cascade=True),
    "dssm": DssmConfig(kind="dssm", embedding=4, dimension=5, hidden=(8,), position_bias=True),
    "dssm-no-bias": DssmConfig(kind="dssm", embedding=4, dimension=5, hidden=(8,), ad_bias=False),
    "cold": ColdConfig(kind="cold", embedding=4, hidden=(8, 4), position_bias=True),
    "cold-some": ColdConfig(
        kind="cold",
        embedding=4,
        hidden=(8,),
        fields=("user.city", "history.clicks", "ad.ad", "ad.price", "ad.tags", "ad.length", "cross.clicks"),
    ),
    "mtl": MtlConfig(kind="mtl", embedding=4, scene="tab", max_scenes=3, hidden=(8, 4), position_bias=True),
    "mtl-star": MtlConfig(kind="mtl", embedding=4, scene="tab", star=True, hidden=(8, 4)),
    "mtl-shared": MtlConfig(kind="mtl", embedding=4, scene="tab", shared=(8,), hidden=(4,), activation="dice"),
    "mtl-related": MtlConfig(
        kind="mtl", embedding=4, scene="tab", hidden=(8, 4), related=RelatedTask(label="like", weight=0.5)
    ),
    "mtl-related-logit": MtlConfig(
        kind="mtl",
        embedding=4,
        scene="tab",
        star=True,
        hidden=(8, 4),
        position_bias=True,
        related=RelatedTask(label="like", transfer="logit"),
    ),
    "mtl-related-product": MtlConfig(
        kind="mtl",
        embedding=4,
        scene="tab",
        shared=(8, 6),
        hidden=(4,),
        activation="prelu",
        related=RelatedTask(label="like", transfer="product"),
    ),
    "dicm": DicmConfig(
        kind="dicm",
        embedding=4,
        reduction=(5, 3),
        attention="sum",
        attention_hidden=(6, 3),
        hidden=(8, 4),
        position_bias=True,
    ),
    "dicm-image": DicmConfig(
        kind="dicm", embedding=4, vectors="image", reduction=(3,), queries="image", attention_hidden=(6, 3), hidden=(8,)
    ),
}


def small(name: str, seed: int = 0) -> Network:
    """A network of random weights, in evaluation mode."""
    torch.manual_seed(seed)
    network = build(SMALL[name], SCHEMA)
    shake(network, seed)
    if isinstance(network, Dicm):
        network.take(image_vectors())
    return network.eval()
