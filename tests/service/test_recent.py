"""Recent requests come back as they were answered."""

import json
from pathlib import Path

import pytest

from bundle.errors import ContractError
from bundle.record import pack
from service.recent import LARGEST, Recent, read_recent
from service.user_cache import StoredUser
from tests.service.world import demo_records

ANNA = StoredUser(pack(demo_records()["anna"]))


def body(user_id: str) -> bytes:
    return json.dumps({"user_id": user_id, "context": {"scene": "a b\u2028\nc"}, "k": 3}).encode()


def test_requests_come_back_with_their_records(tmp_path: Path) -> None:
    ring = Recent(10)
    ring.add(body("anna"), ANNA)
    ring.add(body("nobody"), None)
    assert ring.write(tmp_path / "requests") == 2
    one, two = read_recent(tmp_path / "requests")
    assert (one.request.user_id, one.request.k) == ("anna", 3)
    assert one.request.context == {"scene": "a b\u2028\nc"}
    assert one.features.known
    assert one.features.record == demo_records()["anna"]
    assert not two.features.known
    assert two.features.record.profile == {}


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    ring = Recent(3)
    for i in range(5):
        ring.add(body(str(i)), None)
    assert len(ring) == 3
    ring.write(tmp_path / "requests")
    assert [each.request.user_id for each in read_recent(tmp_path / "requests")] == ["2", "3", "4"]


def test_none_are_kept_where_none_are_wanted(tmp_path: Path) -> None:
    ring = Recent(0)
    ring.add(body("anna"), ANNA)
    assert ring.write(tmp_path / "requests") == 0
    assert read_recent(tmp_path / "requests") == []


def test_what_would_take_much_memory_is_not_kept() -> None:
    ring = Recent(10)
    ring.add(b" " * (LARGEST + 1), None)
    ring.add(body("anna"), StoredUser(b"x" * (LARGEST + 1)))
    assert len(ring) == 0
    ring.add(b" " * LARGEST, StoredUser(b"x" * LARGEST))
    assert len(ring) == 1


@pytest.mark.parametrize("line", ["rubbish", "e30= -", "! -", "eyJ1c2VyX2lkIjoxfQ== !"])
def test_another_file_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "requests").write_text(f"{line}\n")
    with pytest.raises(ContractError, match="requests, line 1: no request"):
        read_recent(tmp_path / "requests")
