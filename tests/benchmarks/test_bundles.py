"""Bundles of the standard work are real bundles, made once, and their ads lie in clusters."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import bundles
from benchmarks.bundles import work_bundle
from benchmarks.market import Market, dqm_query, make_networks
from benchmarks.work import CATEGORIES, HISTORY, HISTORY_NAME
from bundle.cell_files import check_cells
from bundle.folder import Bundle, open_bundle
from bundle.record import unpack
from service.encode import encode_common
from service.loading import load_bundle
from service.settings import Settings
from tests.benchmarks.conftest import ADS, USERS


@pytest.fixture(scope="module")
def bundle(work: Path) -> Bundle:
    return open_bundle(work)


def test_it_is_proved_when_loaded(work: Path) -> None:
    live = load_bundle(work, Settings(bundle=work))
    assert live.proof.requests == bundles.GOLDEN
    assert (live.sizes.retrieval, live.sizes.qscore, live.sizes.prerank) == (100_000, 10_000, 1_000)


def test_it_is_made_once_and_anew_after_a_change(work: Path, work_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = work.stat().st_mtime_ns
    assert work_bundle(work_root, ADS, "light", users=USERS) == work
    assert work.stat().st_mtime_ns == made
    first = work_bundle(work_root, 30, "light", users=5)
    assert first != work
    assert first.exists()
    monkeypatch.setattr(bundles, "fingerprint", lambda: "changed")
    second = work_bundle(work_root, 30, "light", users=5)
    assert second.name == "work-light-30-5-0-changed"
    assert not first.exists(), "what older code wrote is removed"
    assert work.exists()


def test_rows_are_those_of_the_market(bundle: Bundle) -> None:
    market = Market(ADS, USERS, 0)
    rows = bundle.ads.index.ids_of(np.arange(ADS))
    np.testing.assert_array_equal(bundle.ads.fields[rows], market.fields(np.arange(ADS) + 2))
    np.testing.assert_array_equal(bundle.ads.bids[rows], market.bids[2:])
    check_cells(bundle.folder, bundle.cells, bundle.ads.worth(slice(None)))


def test_users_clicked_what_the_bundle_encodes(bundle: Bundle) -> None:
    market, networks = Market(ADS, USERS, 0), make_networks(ADS, "light")
    assert bundle.users is not None
    for user in (0, 7, USERS - 1):
        record = unpack(bundle.users.get(str(user)) or b"")
        found = encode_common(bundle, str(user), record, None, {})
        expected = market.common(networks.schema, user)
        np.testing.assert_array_equal(found.user, expected.user)
        np.testing.assert_array_equal(found.histories[HISTORY_NAME], expected.histories[HISTORY_NAME])
        assert len(found.histories[HISTORY_NAME]) == HISTORY


def test_ads_of_a_category_lie_near_each_other_and_qscores_follow_the_audience(bundle: Bundle) -> None:
    vectors, category = bundle.ads.vectors.floats(slice(2, None)), bundle.ads.fields[2:, 1]
    sizes = np.maximum(np.bincount(category, minlength=CATEGORIES + 2), 1)
    sums = np.stack([np.bincount(category, column, CATEGORIES + 2) for column in vectors.T], axis=1)
    inside = (vectors - (sums / sizes[:, None])[category]).var()
    assert inside < vectors.var(axis=0).mean() / 10
    networks, market = make_networks(ADS, "light"), Market(ADS, USERS, 0)
    queries = [dqm_query(networks.dqm, market.common(networks.schema, user)) for user in range(20)]
    logits = np.mean([vectors @ query + offset for query, offset in queries], axis=0)
    assert np.corrcoef(1 / (1 + np.exp(-logits)), bundle.ads.qscores[2:])[0, 1] > 0.7


def test_more_ads_than_items_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.market.MOST_ITEMS", 10)
    fields = Market(25, 1, 0).fields(np.arange(27))
    assert fields[:2].tolist() == [[0, 0], [1, 1]]
    assert fields[[2, 12, 22], 0].tolist() == [2, 2, 2]
    assert fields[:, 0].max() == 11
