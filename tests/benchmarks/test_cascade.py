"""The funnel's benchmark measures the service's own funnel, and its recalls are those of plain sorted lists."""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks import cascade
from benchmarks.cascade import PARTS, Measured, Requests
from benchmarks.recall import Exhaustive, Judge
from benchmarks.report import Report
from bundle.bitmap import of_rows
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.settings import Settings
from tests.benchmarks.conftest import ADS, USERS


@pytest.fixture(scope="module")
def live(work: Path) -> LoadedBundle:
    return load_bundle(work, Settings(bundle=work, retrieval_keep=800, qscore_keep=300, prerank_keep=60))


def test_a_request_passes_every_part(live: LoadedBundle) -> None:
    measured = Measured()
    requests = Requests(live)
    for _ in range(3):
        requests.ask(measured)
    assert list(measured.parts) == [*PARTS, "total"]
    assert (measured.of("total") > sum(measured.of(part) for part in PARTS)).all()
    assert measured.kept["retrieval"] == (ADS, 800)
    assert measured.kept["auction"] == (60, 10)


def test_only_allowed_ads_are_matched(live: LoadedBundle) -> None:
    measured = Measured()
    Requests(live, of_rows(np.arange(2, 2 + ADS, 100), ADS + 2)).ask(measured)
    assert measured.kept["retrieval"] == (ADS, ADS // 100)


def test_exhaustive_values_are_those_of_the_stored_vectors_but_for_their_bytes(live: LoadedBundle) -> None:
    bundle = live.bundle
    exhaustive = Exhaustive(bundle, ADS, "light", 4)
    rows = np.arange(2, ADS + 2)
    for asked in exhaustive.asked:
        stored = bundle.ads.vectors.products(rows, asked.query) + asked.offset
        np.testing.assert_allclose(asked.scores[rows], stored, atol=0.1)
        values = exhaustive.values(asked)
        np.testing.assert_allclose(values[rows], bundle.ads.bids[rows] / (1 + np.exp(-asked.scores[rows])), rtol=1e-4)
        assert not values[:2].any()


def test_shares_and_losses_are_of_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.recall.BEST", (2, 4))
    judge = Judge.of(np.array([0, 0, 5, 1, 4, 2, 3], dtype=np.float32))
    assert judge.best.tolist() == [2, 4, 6, 5]
    assert judge.figures(np.array([2, 3, 6])) == pytest.approx([0.5, 0.5, 1 - 8 / 9])
    assert judge.figures(np.arange(7)) == pytest.approx([1.0, 1.0, 0.0])


def test_the_whole_of_it(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue too small to say anything: every figure and curve is there."""
    monkeypatch.setattr(cascade, "ROOT", work.parent)
    monkeypatch.setattr(cascade, "STANDARD", ADS)
    monkeypatch.setattr(cascade, "USERS", USERS)
    monkeypatch.setattr(cascade, "BLOCK", 5)
    monkeypatch.setattr(cascade, "SECONDS", (0.2, 0.2))
    report: Report = cascade.run(argparse.Namespace(ads=[ADS], quick=True))
    names = {"cascade.total_over_din", "cascade.p99_over_p50", "cascade.poisson_p99_over_p50"}
    own = ["p50_ms", "p99_ms", "load_s", "matching_ms", "recall10_retrieval", "recall1000_prerank", "int8_agrees"]
    names |= {f"cascade.n{ADS}.{name}" for name in [*own, *(f"{part}_ms" for part in PARTS)]}
    assert names <= set(report.figures)
    assert report.figures[f"cascade.n{ADS}.recall10_retrieval"] == 1.0, "everything is matched"
    assert report.figures[f"cascade.n{ADS}.int8_agrees"] > 0.9
    assert {name for name in report.series if "waterfall" in name} == {f"cascade.waterfall.{part}" for part in PARTS}
    starts = [report.series[f"cascade.waterfall.{part}"][0] for part in PARTS]
    assert all(b[0] == pytest.approx(sum(a)) for a, b in pairwise(starts))
    assert report.series["cascade.catalogue.p50"][0][0] == ADS
    assert "faiss" in report.text({})
