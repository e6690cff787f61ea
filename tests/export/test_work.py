"""Requests for calibration and for judgement are real, full-size, and not the same."""

from dataclasses import replace

import numpy as np
import pytest

import export.work
from export.work import CALIBRATION, JUDGED, works
from tests.market import Market

CANDIDATES, DIMENSION = 12, 7


def test_requests_are_split_between_calibration_and_judgement(market: Market) -> None:
    vectors = np.ones((len(market.data.ads.fields), DIMENSION), np.float32)
    query, fine = works(market.data, "train", CANDIDATES, vectors, seed=3)
    assert (len(query.calibration), len(query.judged)) == (CALIBRATION, JUDGED)
    assert fine.judged is query.judged
    longest = market.data.schema.histories[0].max_length
    for feeds in [*fine.calibration, *fine.judged]:
        assert feeds["ads"].shape == (CANDIDATES, market.data.schema.ad.id_columns)
        assert feeds["history_clicks"].shape[0] == longest
    seen = {each["ads"].tobytes() for each in fine.calibration}
    assert not seen & {each["ads"].tobytes() for each in fine.judged}


def test_logits_are_those_of_the_requests_own_ads(market: Market) -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(len(market.data.ads.fields), DIMENSION)).astype(np.float32)
    query, fine = works(market.data, "train", CANDIDATES, vectors, seed=3)
    one, offset = random.normal(size=DIMENSION).astype(np.float32), np.asarray(0.5, np.float32)
    for i in (0, 5):
        logits = query.logits(i, [one, offset])
        fields = query.judged[i]["ads"]
        rows = [np.flatnonzero((market.data.ads.fields == each).all(axis=1)) for each in fields]
        for logit, candidates in zip(logits, rows, strict=True):
            assert np.isclose(vectors[candidates] @ one + 0.5, logit, atol=1e-5).any()
    np.testing.assert_array_equal(fine.logits(0, [one]), one)


@pytest.mark.parametrize(("there", "calibration", "judged"), [(9, 3, 6), (1, 1, 1)])
def test_few_requests_are_used_as_far_as_they_go(
    market: Market, monkeypatch: pytest.MonkeyPatch, there: int, calibration: int, judged: int
) -> None:
    monkeypatch.setattr(export.work, "JUDGED", there - CALIBRATION)  # as many are asked for as there are
    query, _ = works(replace(market.data), "train", CANDIDATES, np.zeros((400, DIMENSION), np.float32), seed=3)
    assert (len(query.calibration), len(query.judged)) == (calibration, judged)
