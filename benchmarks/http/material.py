"""What is served and asked: a bundle, the same weights for the peers, bodies, and what torch says of them."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.bundles import work_bundle
from benchmarks.http.servers import Body
from benchmarks.market import Market, make_networks
from benchmarks.tiled import export_tiled
from benchmarks.work import HISTORY_NAME
from bundle.manifest import read_manifest
from bundle.schema import FIRST_KNOWN, FeatureSchema
from models.data.batches import Batch
from models.networks.din import Din

GRAPHS = ("tiled", "factorised")
"""The usual export, and ours."""
ADS = 100_000
USERS = 1_000
CANDIDATES = 500
BODIES = 64
"""Distinct ones, asked in turn."""
CHECKED = 8
TOLERANCE = 1e-4
"""Of a probability."""
BEST = 10


class MismatchError(ValueError):
    """A server gives other scores than the model."""


@dataclass(frozen=True, slots=True)
class Material:
    """One network, ready to be served by everybody."""

    bundle: Path
    weights: Path
    """What the peers' programs read: both graphs and the arrays that turn raw values into ids."""
    bodies: list[Body]
    expected: list[npt.NDArray[np.float32]]
    """Probabilities of the first CHECKED bodies' ads, by the torch model."""

    def check(self, name: str, i: int, scores: list[float]) -> None:
        """MismatchError unless `scores` of body i are the model's, and so are the best ads in their order."""
        found, expected = np.array(scores), self.expected[i]
        if found.shape != expected.shape:
            raise MismatchError(f"{name}: body {i} got {found.size} scores, {expected.size} are asked")
        worst = float(np.abs(found - expected).max())
        if not worst <= TOLERANCE:
            raise MismatchError(f"{name}: scores of body {i} differ by {worst:.2g}, at most {TOLERANCE:g} is allowed")
        if (best := best_ads(found)) != (wanted := best_ads(expected)):
            raise MismatchError(f"{name}: the best ads of body {i} are {best}, those of the model {wanted}")


def best_ads(scores: npt.NDArray[np.floating]) -> list[int]:
    """Places of the BEST highest scores, best first."""
    return [int(place) for place in np.argsort(-scores, kind="stable")[:BEST]]


def make_material(root: Path, folder: Path, unit: str, ads: int = ADS) -> Material:
    """The bundle of the standard work under `root`, and the peers' files in `folder`."""
    bundle = work_bundle(root, ads, unit, users=USERS)
    networks, market = make_networks(ads, unit), Market(ads, USERS, 0)
    weights = folder / f"weights-{unit}"
    for graph in GRAPHS:
        (weights / graph).mkdir(parents=True)
    export_tiled(networks.din, weights / "tiled/din.onnx")
    served = bundle / read_manifest(bundle).stages.finerank.graph.file
    for file in served.parent.glob(f"{served.stem}.*"):  # large weights are in a file of their own beside the graph
        shutil.copy(file, weights / "factorised")
    shutil.copy(bundle / "ads/ids.npy", weights)
    np.save(weights / "fields.npy", market.fields(np.arange(ads + FIRST_KNOWN)).astype(np.int64))
    for name in ("age", "city"):
        shutil.copy(bundle / f"vocabulary/{name}.npy", weights)
    bodies = [make_body(market, user) for user in range(BODIES)]
    expected = [probabilities(networks.din, networks.schema, market, body) for body in bodies[:CHECKED]]
    return Material(bundle, weights, bodies, expected)


def make_body(market: Market, user: int) -> Body:
    """A request that carries everything: CANDIDATES random ads, the user's profile and what it clicked."""
    ads = np.random.default_rng([market.seed, 4, user]).choice(market.ads, CANDIDATES, replace=False)
    features = {"profile": market.profile(user), "history": {HISTORY_NAME: market.clicks[user].tolist()}}
    return {"user_id": user, "context": {}, "ads": ads.tolist(), "user": features}


def probabilities(din: Din, schema: FeatureSchema, market: Market, body: Body) -> npt.NDArray[np.float32]:
    """float32[N] by the torch model itself, not by a graph made of it."""
    common = {
        name: torch.from_numpy(each)[None] for name, each in market.common(schema, body["user_id"]).feeds().items()
    }
    rows = np.array(body["ads"]) + FIRST_KNOWN
    n = len(rows)
    nothing = torch.zeros(n, dtype=torch.int64)
    batch = Batch(
        user=common["user"],
        user_numbers=common["user_numbers"],
        context=common["context"],
        context_numbers=common["context_numbers"],
        histories={HISTORY_NAME: common[f"history_{HISTORY_NAME}"]},
        ads=torch.from_numpy(market.fields(rows)).long(),
        ad_numbers=torch.zeros(n, 0),
        request=nothing,
        labels=torch.zeros(n),
        positions=nothing,
        rows=rows.astype(np.int32),
        users=nothing.numpy(),
        truth=None,
    )
    with torch.inference_mode():
        scores: npt.NDArray[np.float32] = torch.sigmoid(din(batch)).numpy()
    return scores
