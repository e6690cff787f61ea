"""Every peer has its program, its pinned requirements and its way of asking."""

import re
from pathlib import Path

import pytest

from benchmarks.http.environments import set_up, version_of
from benchmarks.http.servers import OUR_PATH, PEERS, PROGRAMS, encoded, kserve, kserve_scores, our_scores, same

BODY = {
    "user_id": 3,
    "context": {},
    "ads": [4, 5],
    "user": {"profile": {"age": 1, "city": 2}, "history": {"clicks": [7, 8, 9]}},
}


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_has_a_program_and_pinned_requirements(name: str) -> None:
    peer = PEERS[name]
    assert peer.name == name
    assert (PROGRAMS / f"{name}_app.py").exists()
    if peer.own_environment:
        lines = peer.requirements.read_text().split()
        assert lines
        assert all(re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", line) for line in lines)
        assert any(line.startswith(peer.distribution) for line in lines)
    else:
        assert not peer.requirements.exists()


def test_a_peer_without_an_environment_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no environment .*ray: adrank bench http --setup ray"):
        PEERS["ray"].start(tmp_path, tmp_path, "tiled", tmp_path, 0)
    assert version_of("ray", tmp_path) == "?"
    assert version_of("fastapi", tmp_path) != "?"


def test_only_peers_are_set_up(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no peer 'tornado'; known: fastapi, litserve"):
        set_up(["tornado"], tmp_path)
    assert set_up(["fastapi"], tmp_path) == ["fastapi: runs in this environment"]


def test_the_body_is_the_same_for_all_but_the_protocol() -> None:
    (ours,) = encoded(OUR_PATH, same, [BODY])
    for peer in PEERS.values():
        (theirs,) = encoded(peer.path, peer.wrap, [BODY])
        if peer.wrap is same:
            assert theirs.partition(b"\r\n\r\n")[2] == ours.partition(b"\r\n\r\n")[2]
    assert {name for name, peer in PEERS.items() if peer.wrap is not same} == {"triton"}


def test_natural_tensors_hold_the_same_values() -> None:
    tensors = {each["name"]: each for each in kserve(BODY)["inputs"]}
    assert {name: each["data"] for name, each in tensors.items()} == {
        "ads": [4, 5],
        "age": [1],
        "city": [2],
        "clicks": [7, 8, 9],
    }
    assert all(each["shape"] == [len(each["data"])] for each in tensors.values())
    assert kserve_scores({"outputs": [{"name": "scores", "data": [0.5, 0.25]}]}) == [0.5, 0.25]


def test_a_degraded_answer_of_ours_is_not_measured() -> None:
    right = {"degraded": [], "scored_by": "finerank", "pctr": [0.5]}
    assert our_scores(right) == [0.5]
    for wrong in ({"degraded": ["finerank: deadline"]}, {"scored_by": "prerank"}):
        with pytest.raises(ValueError, match="adrank answered degraded"):
            our_scores(right | wrong)
