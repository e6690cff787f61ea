import mmap
from pathlib import Path

import numpy as np

from service.memory_use import MIB, available, held


def test_what_is_made_is_held() -> None:
    before = held()
    made = np.ones(50 * MIB // 8)
    after = held()
    assert before is not None
    assert after is not None
    assert 45 * MIB < after.own - before.own < 70 * MIB
    del made


def test_what_is_mapped_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 50 * MIB)
    before = held()
    with (tmp_path / "file").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[i] for i in range(0, 50 * MIB, 4096)) > 0
        after = held()
    assert before is not None
    assert after is not None
    assert 45 * MIB < after.mapped - before.mapped < 60 * MIB
    assert after.own - before.own < 10 * MIB


def test_something_is_available() -> None:
    assert (available() or 0) > MIB
