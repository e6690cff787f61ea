"""The ads and users of the standard work's bundles.

Ads have an item and a category; popular categories have more of them. Weights are random, but DQM's categories lie far
apart and its items close together, so that ad vectors stand in clusters as trained ones do and matching has something
to find. Users click what their few favourite categories hold.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.work import AGES, CATEGORIES, CITIES, HISTORY, HISTORY_NAME, MOST_ITEMS, make_din, make_dqm, work_schema
from bundle.ad_index import AdIndex
from bundle.ad_vectors import AdVectors
from bundle.cell_files import arrange, save_cells
from bundle.cells import Cells
from bundle.golden import Common
from bundle.record import Event, UserRecord, pack
from bundle.rounding import Coded
from bundle.schema import FIRST_KNOWN, FeatureSchema
from bundle.vocabulary import Vocabulary
from export.matching import write_postings
from models.cells import cell_of_ads
from models.networks.din import Din
from models.networks.dqm import Dqm

CHUNK = 131_072
"""Ads computed at once."""
APART = 8.0
"""Spread of DQM's categories ÷ that of its items: vectors then differ 7 times as much between categories as in one."""
SHARPNESS = 2.0
"""Scale of DQM's layers: the logits of one user's ads then have a standard deviation near 1, as trained ones do."""
BIAS = -4.0
"""DQM's constant: click probabilities of a few per cent."""
FAVOURITES = 4
FAVOURED = 0.8
"""Share of a user's clicks that fall into the favourite categories."""
AUDIENCE, IMPRESSIONS = 256, 300
"""What Qscores are measured on."""
POPULARITY = 10
"""Categories are drawn in proportion to 1 / (rank + this)."""


@dataclass(frozen=True, slots=True)
class Networks:
    """The models of a bundle."""

    schema: FeatureSchema
    din: Din
    dqm: Dqm


def make_networks(ads: int, unit: str, seed: int = 0) -> Networks:
    """DIN and DQM of the standard work, DQM's vectors in clusters by category."""
    schema = work_schema(ads)
    dqm = make_dqm(schema, seed)
    with torch.no_grad():
        first = dqm.arena.starts["category"] + FIRST_KNOWN
        dqm.arena.weight[first : first + CATEGORIES] *= APART
        for tower in (dqm.user_tower, dqm.ad_tower):
            for parameter in tower.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(SHARPNESS)
        dqm.scene_tower.out.bias[-1] = BIAS
    return Networks(schema, make_din(schema, unit, seed=seed), dqm)


class Market:
    """Who is there: `ads` ads and `users` users, drawn from `seed`."""

    def __init__(self, ads: int, users: int, seed: int) -> None:
        self.ads, self.users, self.seed = ads, users, seed

    @cached_property
    def categories(self) -> npt.NDArray[np.int32]:
        """The category of each ad, int32[ads], from 0."""
        random = np.random.default_rng([self.seed, 0])
        weight = 1.0 / (np.arange(CATEGORIES) + POPULARITY)
        return random.choice(CATEGORIES, self.ads, p=weight / weight.sum()).astype(np.int32)

    @cached_property
    def bids(self) -> npt.NDArray[np.float32]:
        """float32[ads + 2], lognormal."""
        random = np.random.default_rng([self.seed, 1])
        return np.pad(random.lognormal(0.0, 0.5, self.ads), (FIRST_KNOWN, 0), constant_values=1.0).astype(np.float32)

    @cached_property
    def clicks(self) -> npt.NDArray[np.int64]:
        """The ads each user clicked, int64[users, HISTORY], oldest first."""
        random = np.random.default_rng([self.seed, 3])
        order = np.argsort(self.categories, kind="stable")
        starts = np.searchsorted(self.categories[order], np.arange(CATEGORIES + 1))
        anywhere = random.integers(0, self.ads, (self.users, HISTORY))
        favourites = self.categories[random.integers(0, self.ads, (self.users, FAVOURITES))]
        chosen = favourites[np.arange(self.users)[:, None], random.integers(0, FAVOURITES, (self.users, HISTORY))]
        inside = random.random((self.users, HISTORY)) * (starts[chosen + 1] - starts[chosen])
        favoured = order[starts[chosen] + inside.astype(np.int64)]
        return np.where(random.random((self.users, HISTORY)) < FAVOURED, favoured, anywhere)

    def profile(self, user: int) -> dict[str, int]:
        """Raw values."""
        return {"age": user % AGES, "city": user % CITIES}

    def fields(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.int32]:
        """Encoded ads int32[n, 2]; `rows` are those of a catalogue in the order of ids: id + 2.

        Beyond MOST_ITEMS, ads share items: creatives of one product."""
        ad = np.maximum(rows - FIRST_KNOWN, 0)
        found = np.stack([ad % MOST_ITEMS, self.categories[ad]], axis=1).astype(np.int32) + FIRST_KNOWN
        return np.where(rows[:, None] < FIRST_KNOWN, np.asarray(rows, dtype=np.int32)[:, None], found)

    def common(self, schema: FeatureSchema, user: int) -> Common:
        """The encoded common features of a user."""
        profile = self.profile(user)
        return Common(
            user=np.array([profile[field.name] + FIRST_KNOWN for field in schema.user.id_fields]),
            user_numbers=np.zeros(0, np.float32),
            context=np.zeros(0, np.int64),
            context_numbers=np.zeros(0, np.float32),
            histories={HISTORY_NAME: self.fields(self.clicks[user] + FIRST_KNOWN).astype(np.int64)},
        )


def write_vocabularies(schema: FeatureSchema, folder: Path) -> None:
    """vocabulary/: every field's values are 0, 1, ..."""
    (folder / "vocabulary").mkdir()
    for side in (schema.user, schema.ad):
        for field in side.id_fields:
            np.save(folder / f"vocabulary/{field.name}.npy", np.arange(field.size - FIRST_KNOWN))


@dataclass(frozen=True, slots=True)
class Shelves:
    """The ads as a bundle has them, in the order of cells."""

    index: AdIndex
    cells: Cells
    vectors: AdVectors
    qscores: npt.NDArray[np.float32]


def arrange_ads(networks: Networks, market: Market, stored: Coded = "int8") -> Shelves:
    """Vectors, Qscores and cells of the ads. 10^7 take four minutes and 4 GB."""
    vectors = np.empty((market.ads + FIRST_KNOWN, networks.dqm.config.dimension + 1), dtype=np.float32)
    for start in range(0, len(vectors), CHUNK):
        piece = np.arange(start, min(start + CHUNK, len(vectors)))
        ids = torch.from_numpy(market.fields(piece)).long()
        with torch.inference_mode():
            vectors[piece] = networks.dqm.ad_vectors(ids, torch.zeros(len(piece), 0)).numpy()
    qscores = clicked(networks, market, vectors)
    order, cells = arrange(vectors, qscores * market.bids, cell_of_ads(vectors, market.seed))
    index = AdIndex.ordered(Vocabulary(np.arange(market.ads)), order)
    return Shelves(index, cells, AdVectors.of(vectors, stored).of_rows(order), qscores[order])


def dqm_query(dqm: Dqm, common: Common) -> tuple[npt.NDArray[np.float32], float]:
    """Query vector and offset of one request, by torch."""
    one = {name: torch.from_numpy(each)[None] for name, each in common.feeds().items()}
    histories = {name: one[f"history_{name}"] for name in common.histories}
    with torch.inference_mode():
        query, offset = dqm.query_of(
            one["user"], one["user_numbers"], one["context"], one["context_numbers"], histories
        )
    return query[0].numpy(), float(offset[0])


def clicked(networks: Networks, market: Market, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Qscores float32[n + 2]: DQM's click probability for the mean of AUDIENCE users, as IMPRESSIONS impressions show
    it, which is a beta variable."""
    audience = range(min(market.users, AUDIENCE))
    queries = [dqm_query(networks.dqm, market.common(networks.schema, user)) for user in audience]
    mean = np.mean([np.append(query, offset) for query, offset in queries], axis=0).astype(np.float32)
    probability = 1.0 / (1.0 + np.exp(-(vectors @ mean[:-1] + mean[-1])))
    random = np.random.default_rng([market.seed, 2])
    found: npt.NDArray[np.float32] = random.beta(probability * IMPRESSIONS, (1.0 - probability) * IMPRESSIONS).astype(
        np.float32
    )
    found[:FIRST_KNOWN] = 0.0, probability.mean()
    return found


def write_ads(networks: Networks, market: Market, shelves: Shelves, folder: Path) -> None:
    """ads/, cells/ and postings/."""
    for name in ("ads", "cells", "postings"):
        (folder / name).mkdir()
    shelves.index.write(folder / "ads")
    shelves.vectors.write(folder / "ads")
    save_cells(folder / "cells", shelves.cells)
    bids, fields = market.bids[shelves.index.places], market.fields(shelves.index.places)
    np.save(folder / "ads/bids.npy", bids)
    np.save(folder / "ads/qscores.npy", shelves.qscores)
    np.save(folder / "ads/fields.npy", fields)
    np.save(folder / "ads/numbers.npy", np.zeros((len(fields), 0), dtype=np.float32))
    write_postings(networks.schema, "category", fields, shelves.qscores * bids, folder / "postings")


def write_users(market: Market, folder: Path) -> None:
    """users/: packed records."""
    (folder / "users").mkdir()
    records = {}
    for user in range(market.users):
        events = tuple(Event("click", i, (int(ad),)) for i, ad in enumerate(market.clicks[user]))
        records[str(user)] = pack(UserRecord(market.profile(user), events))
    index = Vocabulary.of(list(records))
    index.save(folder / "users/ids.npy")
    packed = [records[value.decode()] for value in index.values.tolist()]
    np.save(folder / "users/offsets.npy", np.cumsum([0, *map(len, packed)]).astype(np.int64))
    np.save(folder / "users/records.npy", np.frombuffer(b"".join(packed), dtype=np.uint8))
