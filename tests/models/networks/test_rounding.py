"""Torch rounds embeddings as bundle/rounding.py does, and gradients pass."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bundle.rounding import Coded, Float32, quantise
from models.config import ConfigError
from models.networks.config import FmConfig, TableConfig
from models.networks.layers import Arena
from models.networks.registry import build
from models.networks.rounding import rounded
from tests.bundle.test_rounding import HARD
from tests.models.world import SCHEMA

elements = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("stored", ["int8", "int4"])
@given(values=arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=elements))
def test_it_is_the_same_to_the_bit(values: Float32, stored: Coded) -> None:
    for each in (values, HARD):
        codes, scales = quantise(each, stored)
        found = rounded(torch.from_numpy(each).unsqueeze(0), stored)[0]
        np.testing.assert_array_equal(found.numpy(), codes * scales[:, None])


@pytest.mark.parametrize("denormals_are_zero", [True, False])
def test_denormal_floats_make_no_difference(denormals_are_zero: bool) -> None:
    torch.set_flush_denormal(denormals_are_zero)
    try:
        assert not rounded(torch.tensor([[1e-39, -1e-45, 1e-38]]), "int8").any()
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("stored", ["fp16", "int8", "int4"])
def test_gradients_pass_as_if_nothing_was_rounded(stored: Coded) -> None:
    values = torch.randn(4, 6, requires_grad=True)
    factors = torch.randn(4, 6)
    found = rounded(values, stored)
    assert torch.equal(found.detach(), rounded(values.detach(), stored))
    assert not torch.equal(found.detach(), values.detach())
    torch.autograd.backward((found * factors).sum())
    torch.testing.assert_close(values.grad, factors, rtol=0, atol=0)


def test_an_arena_gives_each_column_as_its_table_is_stored() -> None:
    arena = Arena(SCHEMA, 6, 0.3)
    arena.values |= {"ad": "int4", "tags": "fp16"}
    tables, fields = ("tags", "city", "ad"), (SCHEMA.ad.id_fields[1], SCHEMA.user.id_fields[0], SCHEMA.ad.id_fields[0])
    offsets = torch.tensor([arena.starts[name] for name in tables])
    ids = torch.tensor([[2, 3, 4], [0, 2, 0]])
    found = arena(ids, offsets, tables)
    assert [table for table, field in zip(tables, fields, strict=True) if field.vocabulary != table] == []
    for i, row in enumerate(ids.tolist()):
        for j, (table, each) in enumerate(zip(tables, row, strict=True)):
            weight = arena.weight.detach()[arena.starts[table] + each if each else 0]
            assert torch.equal(found[i, j].detach(), rounded(weight[None], arena.values[table])[0])
    assert not found[1, [0, 2]].any()
    torch.autograd.backward(found.sum())
    assert arena.weight.grad is not None
    assert arena.weight.grad[0].abs().sum() == 0, "padding is not trained"
    assert torch.equal(arena.weight.grad[arena.starts["ad"] + 4], torch.ones(6))


def test_a_table_that_is_not_there_is_named() -> None:
    config = FmConfig(kind="fm", tables={"adds": TableConfig(values="int8")})
    with pytest.raises(ConfigError, match=r"model\.tables: there is no table 'adds', known: city, tab, ad, tags"):
        build(config, SCHEMA)
