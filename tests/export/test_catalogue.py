"""Users' records are copied byte for byte, all or evenly spread ones."""

from pathlib import Path

import numpy as np
import pytest

from bundle.folder import DemoUsers
from bundle.vocabulary import Vocabulary
from export.catalogue import copy_users, filter_names, user_count
from tests.market import Market


def users_in(folder: Path) -> DemoUsers:
    return DemoUsers(
        Vocabulary.load(folder / "ids.npy"), np.load(folder / "offsets.npy"), np.load(folder / "records.npy")
    )


@pytest.mark.parametrize(("limit", "count"), [(None, 200), (1, 1), (7, 7), (199, 199), (200, 200), (5000, 200)])
def test_users_are_copied(market: Market, tmp_path: Path, limit: int | None, count: int) -> None:
    assert user_count(market.data, limit) == count
    copy_users(market.data, tmp_path / "users", limit)
    before, after = users_in(market.data.folder / "users"), users_in(tmp_path / "users")
    assert len(after.index) == count
    for user in after.ids():
        assert after.get(user) == before.get(user)
    assert after.get("nobody") is None
    assert after.offsets[-1] == len(after.records)


def test_no_users_no_folder(market: Market, tmp_path: Path) -> None:
    assert user_count(market.data, 0) == 0
    copy_users(market.data, tmp_path / "users", 0)
    assert not (tmp_path / "users").exists()


def test_filters_are_those_of_the_description(market: Market) -> None:
    declared = {feature.column for feature in market.data.prepared.spec.ad_features if feature.filter}
    assert filter_names(market.data) == tuple(sorted(declared))
