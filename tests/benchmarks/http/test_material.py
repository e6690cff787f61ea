"""The peers are given the same weights, and a server that scores otherwise is refused."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from benchmarks.http.material import BEST, CANDIDATES, CHECKED, GRAPHS, Material, MismatchError, best_ads
from benchmarks.http.servers import PROGRAMS
from bundle.folder import open_bundle
from bundle.record import UserRecord
from bundle.schema import UNKNOWN
from service.encode import encode_common, rows_of
from service.schemas import ScoreRequest
from tests.benchmarks.conftest import ADS


def scoring() -> ModuleType:
    """The peers' own module, which is no part of our packages."""
    spec = importlib.util.spec_from_file_location("scoring", PROGRAMS / "scoring.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_peers_weights_give_the_models_scores(material: Material, graph: str) -> None:
    scorer = scoring().Scorer(material.weights, graph)
    for i in range(CHECKED):
        material.check(graph, i, scorer.score_body(material.bodies[i]))


def test_the_peers_look_unknown_values_up_as_the_service_does(material: Material) -> None:
    rows = scoring().rows
    assert rows(np.array([3, 5, 9]), np.array([5, 4, 9, 10, -1, 3])).tolist() == [3, 1, 4, 1, 1, 2]
    assert int(rows(np.array([3, 5, 9]), np.int64(9))) == 4
    bundle = open_bundle(material.bundle)
    found = rows(np.load(material.weights / "ids.npy"), np.array([7, ADS + 5, 0]))
    fields = np.load(material.weights / "fields.npy")[found]
    assert fields.tolist() == bundle.ads.fields[rows_of(bundle.ads.index, [7, ADS + 5, 0])].tolist()
    assert found.tolist()[1] == UNKNOWN


def test_bodies_differ_and_carry_all_that_the_service_needs(material: Material) -> None:
    assert len({str(body) for body in material.bodies}) == len(material.bodies)
    bundle = open_bundle(material.bundle)
    for body in material.bodies[:CHECKED]:
        request = ScoreRequest.model_validate(body)
        assert len(set(request.ads)) == CANDIDATES
        assert request.user is not None
        assert set(request.user.profile) == {"age", "city"}
        assert len(request.user.history["clicks"]) == 50
        common = encode_common(bundle, request.user_id, UserRecord(), request.user, {})
        assert (common.histories["clicks"] > 1).all(), "every clicked ad is known"


def test_the_same_scores_in_another_order_are_refused(material: Material) -> None:
    right = material.expected[0]
    material.check("peer", 0, right.tolist())
    material.check("peer", 0, (right + 5e-5).tolist())
    with pytest.raises(MismatchError, match=r"peer: scores of body 0 differ by .*, at most 0\.0001 is allowed"):
        material.check("peer", 0, (right + 1e-3).tolist())
    with pytest.raises(MismatchError, match="got 499 scores, 500 are asked"):
        material.check("peer", 0, right[1:].tolist())
    with pytest.raises(MismatchError, match="differ by nan"):
        material.check("peer", 0, [float("nan"), *right[1:].tolist()])


def test_other_best_ads_are_refused_though_scores_are_near(material: Material) -> None:
    right = material.expected[0].copy()
    first, second = best_ads(material.expected[0])[:2]
    right[second] = right[first] - np.float32(2e-5)
    close = replace(material, expected=[right])
    swapped = right.copy()
    swapped[[first, second]] = swapped[[second, first]]
    with pytest.raises(MismatchError, match="the best ads of body 0 are"):
        close.check("peer", 0, swapped.tolist())


def test_the_best_ads_are_in_order() -> None:
    scores = np.linspace(0.0, 1.0, 30)
    assert best_ads(scores) == list(range(29, 29 - BEST, -1))


def test_the_weights_hold_both_graphs(material: Material) -> None:
    for graph in GRAPHS:
        assert len(list((material.weights / graph).glob("*.onnx"))) == 1
    assert Path(material.weights / "fields.npy").exists()
