"""Fields as vectors, and their linear part, against a look-up of one value at a time."""

from dataclasses import replace

import torch

from bundle.schema import FeatureSchema, Side
from models.networks.fields import FieldVectors
from models.networks.first_order import FirstOrder
from models.networks.layers import Arena
from tests.models.networks.plain import plain_fields
from tests.models.world import SCHEMA, random_batch, shake


def test_every_field_is_one_vector() -> None:
    arena = Arena(SCHEMA, 4, 0.1)
    vectors = FieldVectors(SCHEMA, arena, 0.1)
    batch = random_batch(3, 2, 5)
    with torch.no_grad():
        request, ads = vectors.of_batch(arena, batch)
        assert request.shape == (3, vectors.of_one_request, 4)
        assert ads.shape == (6, vectors.of_one_ad, 4)
        for m in range(6):
            expected = torch.stack(plain_fields(vectors, arena, batch, m))
            torch.testing.assert_close(torch.cat([request[batch.request[m]], ads[m]]), expected)


def test_the_linear_part_is_a_sum_over_fields_and_starts_at_nothing() -> None:
    first = FirstOrder(SCHEMA)
    batch = random_batch(3, 2, 5)
    assert first(batch).abs().max() == 0
    shake(first)
    with torch.no_grad():
        expected = [sum(plain_fields(first.vectors, first.arena, batch, m)) for m in range(6)]
        assert all(isinstance(each, torch.Tensor) for each in expected)
        torch.testing.assert_close(first(batch), torch.cat([torch.as_tensor(each) for each in expected]))


def test_a_value_weighs_otherwise_as_a_candidate_than_among_behaviours() -> None:
    first = FirstOrder(SCHEMA)
    with torch.no_grad():
        first.arena.weight[first.arena.starts["history_clicks.ad"] + 7] = 3.0
    batch = random_batch(2, 3, 4)
    clicks = torch.zeros((2, 2, 4), dtype=torch.int64)
    clicks[1, :, 0] = torch.tensor([7, 8])
    ads = batch.ads.index_fill(1, torch.tensor([0]), 7)
    with torch.no_grad():
        assert first(replace(batch, ads=ads, histories={"clicks": clicks})).tolist() == [0.0, 0.0, 0.0, 1.5, 1.5, 1.5]


def test_sides_without_fields() -> None:
    """Requests of which nothing is known, and ads of ids alone."""
    schema = FeatureSchema(user_key="user", ad_key="ad", ad=Side(fields=SCHEMA.ad.fields[:1]))
    arena = Arena(schema, 4, 0.1)
    vectors = FieldVectors(schema, arena, 0.1)
    none, numbers = torch.zeros((2, 0), dtype=torch.int64), torch.zeros((2, 0))
    assert vectors.of_request(arena, none, numbers, none, numbers, {}).shape == (2, 0, 4)
    assert vectors.of_ads(arena, torch.tensor([[3], [4]]), numbers).shape == (2, 1, 4)
