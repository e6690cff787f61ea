from pathlib import Path

import numpy as np
import pytest

from bundle.errors import ContractError, GoldenError
from bundle.golden import compare, load_golden, save_golden
from tests.bundle import small


def test_rows_make_the_round_trip(tmp_path: Path) -> None:
    rows = small.golden_rows(3)
    save_golden(tmp_path, rows)
    loaded = load_golden(tmp_path)
    assert len(loaded) == 3
    for row, found in zip(rows, loaded, strict=True):
        feeds, found_feeds = row.common.feeds(), found.common.feeds()
        assert list(found_feeds) == ["user", "user_numbers", "context", "context_numbers", "history_clicks"]
        for name, array in feeds.items():
            np.testing.assert_array_equal(found_feeds[name], array)
            assert found_feeds[name].dtype == array.dtype
        np.testing.assert_array_equal(found.ads, row.ads)
        np.testing.assert_array_equal(found.query, row.query)
        np.testing.assert_array_equal(found.logits, row.logits)
        assert found.offset == row.offset


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    save_golden(tmp_path, small.golden_rows())
    path = tmp_path / "golden.npz"
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2], whole[:-1], b"\x93NUMPY" + whole[6:]):
        path.write_bytes(content)
        with pytest.raises(ContractError, match=r"golden\.npz: cannot be read"):
            load_golden(tmp_path)
    path.unlink()
    with pytest.raises(ContractError, match=r"golden\.npz: cannot be read"):
        load_golden(tmp_path)


def test_any_flipped_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    save_golden(tmp_path, small.golden_rows())
    path = tmp_path / "golden.npz"
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for place in random.integers(0, len(whole), 300).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(damaged)
        try:
            load_golden(tmp_path)
        except ContractError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize("name", ["user", "query", "logits", "ads"])
def test_an_archive_that_lacks_an_array_is_refused(tmp_path: Path, name: str) -> None:
    save_golden(tmp_path, small.golden_rows())
    with np.load(tmp_path / "golden.npz") as stored:
        arrays = {key: stored[key] for key in stored.files if key != name}
    np.savez(tmp_path / "golden.npz", allow_pickle=False, **arrays)
    with pytest.raises(ContractError, match=name):
        load_golden(tmp_path)


def test_arrays_of_unequal_length_are_refused(tmp_path: Path) -> None:
    save_golden(tmp_path, small.golden_rows())
    with np.load(tmp_path / "golden.npz") as stored:
        arrays = dict(stored)
    arrays["logits"] = arrays["logits"][:1]
    np.savez(tmp_path / "golden.npz", allow_pickle=False, **arrays)
    with pytest.raises(ContractError, match=r"golden\.npz: cannot be read"):
        load_golden(tmp_path)


def test_compare_gives_the_largest_difference() -> None:
    assert compare("logits", [1.0, 2.5], [1.0, 2.0], 0.5) == 0.5
    assert compare("logits", [], [], 1e-9) == 0.0


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([1.0, 2.6], r"logits: differs from the golden rows by 0\.6, at most 0\.5 is allowed"),
        ([1.0, float("nan")], "differs from the golden rows by nan"),
        ([1.0, float("inf")], "differs from the golden rows by inf"),
        ([1.0], r"logits: has shape \[1\], the golden rows \[2\]"),
        (1.0, r"logits: has shape \[\], the golden rows \[2\]"),
    ],
)
def test_compare_refuses(found: object, message: str) -> None:
    with pytest.raises(GoldenError, match=message):
        compare("logits", found, [1.0, 2.0], 0.5)  # type: ignore[arg-type]


def test_equal_infinities_are_no_proof() -> None:
    with pytest.raises(GoldenError, match="differs from the golden rows by nan"):
        compare("logits", [float("inf")], [float("inf")], 0.5)
