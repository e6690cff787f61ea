"""The mini-batch-aware penalty against a plain loop over (table, id) pairs."""

from collections import Counter
from itertools import islice

import polars as pl
import pytest
import torch

from bundle.schema import FIRST_KNOWN, UNKNOWN, HistorySpec, Side
from models.data.batches import Batch, batches
from models.data.prepared import PreparedData
from models.embedding_l2 import EmbeddingL2
from models.networks.config import DinConfig, LrConfig
from models.networks.din import Din
from models.networks.layers import table_of
from models.networks.lr import Lr
from models.training import hide
from tests.market import DIN, Market
from tests.models.world import shake

STRENGTH = 0.5
Pair = tuple[str, int]


@pytest.fixture
def network(market: Market) -> Din:
    torch.manual_seed(0)
    made = Din(DinConfig.model_validate(DIN), market.data.schema)
    shake(made)
    return made


def pairs(side: Side, ids: list[int]) -> list[Pair]:
    """What one encoded row names and embeds, padding left out."""
    embedded = [(field, place) for field, place in side.slices() if not field.vector]
    return [(table_of(field), ids[c]) for field, place in embedded for c in range(place.start, place.stop) if ids[c]]


def behaviour(data: PreparedData, history: HistorySpec, row: int) -> list[Pair]:
    ids = data.ads.fields[row].tolist()
    columns = data.schema.history_columns(history)
    return pairs(data.schema.ad, [value if c in columns else 0 for c, value in enumerate(ids)])


def counted(data: PreparedData) -> Counter[Pair]:
    """Occurrences in the training split: common features once a request, candidates and behaviours each."""
    found: Counter[Pair] = Counter()
    for part in data.parts("train"):
        for request in pl.read_parquet(part).iter_rows(named=True):
            found.update(pairs(data.schema.user, request["user_ids"]))
            found.update(pairs(data.schema.context, request["context_ids"]))
            for ad in request["ads"]:
                found.update(pairs(data.schema.ad, data.ads.fields[ad].tolist()))
            for history in data.schema.histories:
                for ad in request[f"history_{history.name}"]:
                    found.update(behaviour(data, history, ad))
    return found


def touched(batch: Batch, data: PreparedData) -> set[Pair]:
    """The distinct pairs of a batch."""
    found: set[Pair] = set()
    for side, rows in (
        (data.schema.user, batch.user),
        (data.schema.context, batch.context),
        (data.schema.ad, batch.ads),
    ):
        for ids in rows.tolist():
            found.update(pairs(side, ids))
    for history in data.schema.histories:
        columns = data.schema.history_columns(history)
        for request in batch.histories[history.name].tolist():
            for ids in request:
                row = [0] * data.schema.ad.id_columns
                for column, value in zip(columns, ids, strict=True):
                    row[column] = value
                found.update(pairs(data.schema.ad, row))
    return found


def test_frequencies_are_those_of_the_training_split(market: Market, network: Din) -> None:
    l2 = EmbeddingL2(network, market.data, STRENGTH)
    expected = torch.ones(len(network.arena.weight))
    for (table, i), n in counted(market.data).items():
        expected[network.arena.starts[table] + i] = n
    assert torch.equal(l2.occurrences[1:], expected[1:])


def test_the_penalty_is_the_formula(market: Market, network: Din) -> None:
    l2, counts = EmbeddingL2(network, market.data, STRENGTH), counted(market.data)
    weight = network.arena.weight.detach().double()
    for batch in islice(batches(market.data, "train", 200, 1), 3):
        expected = 0.0
        for table, i in touched(batch, market.data):
            w = weight[network.arena.starts[table] + i]
            expected += STRENGTH / 2 * float(w @ w) / counts[table, i]
        assert l2.penalty(batch).item() == pytest.approx(expected, rel=1e-5)


def test_ids_never_trained_on_count_once(market: Market, network: Din) -> None:
    """unknown_rate shows the unknown, which no row of the training split may have."""
    l2, counts = EmbeddingL2(network, market.data, STRENGTH), counted(market.data)
    batch = hide(next(batches(market.data, "train", 100, 1)), 0.999, 1)
    unknown = {pair for pair in touched(batch, market.data) if pair[1] == UNKNOWN}
    assert unknown
    assert not unknown & set(counts)
    for table, i in unknown:
        assert l2.occurrences[network.arena.starts[table] + i] == 1


def test_only_rows_of_the_batch_get_a_gradient(market: Market, network: Din) -> None:
    batch = next(batches(market.data, "train", 50, 1))
    torch.autograd.backward(EmbeddingL2(network, market.data, STRENGTH).penalty(batch))
    assert network.arena.weight.grad is not None
    moved = set(torch.nonzero(network.arena.weight.grad.abs().sum(1)).flatten().tolist())
    assert moved == {network.arena.starts[table] + i for table, i in touched(batch, market.data)}
    assert 0 not in moved, "padding is never trained"
    assert len(moved) < len(network.arena.weight) / 2


def test_a_network_without_histories_counts_candidates_alone(market: Market) -> None:
    lr = Lr(LrConfig(kind="lr", histories=False), market.data.schema)
    shake(lr)
    l2 = EmbeddingL2(lr, market.data, STRENGTH)
    first, size = lr.arena.starts["ad.category"] + FIRST_KNOWN, lr.arena.fields["ad.category"].size
    found = l2.occurrences[first : first + size - FIRST_KNOWN]
    assert found.sum() == market.data.prepared.splits["train"].impressions
    assert l2.penalty(next(batches(market.data, "train", 200, 1))) > 0
