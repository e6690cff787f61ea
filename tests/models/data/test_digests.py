"""Digests of files: of their content, and read once."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from models.data import digests
from models.data.digests import Digests


def write(path: Path, text: str, when: int) -> Path:
    path.write_text(text)
    os.utime(path, ns=(when, when))
    return path


def test_a_digest_is_that_of_the_content(tmp_path: Path) -> None:
    one, two = write(tmp_path / "one", "a", 1), write(tmp_path / "two", "b", 2)
    assert Digests().of([two, one]) == [hashlib.sha256(text).hexdigest() for text in (b"b", b"a")]


def test_a_file_is_read_again_only_when_it_may_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, kept = write(tmp_path / "log", "a", 1), Digests(tmp_path / "root" / "digests.json")
    first = kept.of([path])
    read: list[Path] = []
    compute = digests._digest

    def watched(each: Path) -> str:
        read.append(each)
        return compute(each)

    monkeypatch.setattr(digests, "_digest", watched)
    assert kept.of([path]) == Digests(kept.kept).of([path]) == first
    assert not read
    write(path, "a", 2)
    assert kept.of([path]) == first
    assert read == [path]
    write(path, "b", 3)
    assert kept.of([path]) != first


@pytest.mark.parametrize("content", ["no json", "[]", json.dumps({"other": [1, 2, "x"]})])
def test_a_file_of_digests_that_is_none_is_made_again(tmp_path: Path, content: str) -> None:
    path, kept = write(tmp_path / "log", "a", 1), tmp_path / "digests.json"
    kept.write_text(content)
    assert Digests(kept).of([path]) == Digests().of([path])
    assert json.loads(kept.read_text())[str(path)][2] == hashlib.sha256(b"a").hexdigest()
