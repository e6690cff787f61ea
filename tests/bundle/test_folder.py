from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.bitmap import Bitmap, unpack
from bundle.errors import BundleError, ContractError, IntegrityError
from bundle.folder import open_bundle, verify_files, write_bundle
from bundle.manifest import read_manifest
from bundle.record import unpack as unpack_record
from tests.bundle import small


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.small_bundle(tmp_path)


def unpack_rows(bitmap: Bitmap, rows: int) -> list[int]:
    return [int(row) for row in np.flatnonzero(unpack(bitmap, rows))]


def test_a_written_bundle_is_opened(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert bundle.id == folder.name == "small-1"
    assert bundle.ads.index.id_of("ad-2") == 3
    assert bundle.ads.fields[3].tolist() == [3]
    assert bundle.encoder.schema == small.SCHEMA
    assert bundle.encoder.vocabularies["city"].id_of("Ulm") == 3
    assert unpack_rows(bundle.filters["category"].union([10]), 5) == [2, 4]
    assert unpack_rows(bundle.targeting["scene"].union(["search"]), 5) == [3, 4]
    postings = bundle.postings["category"]
    assert postings.rows[postings.offsets[2] : postings.offsets[3]].tolist() == [2, 4]
    assert set(bundle.manifest.files) == {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"
    }


def mapped(array: np.ndarray[Any, Any] | None) -> bool:
    """Whether the array, or what it is a view of, is a file."""
    return isinstance(array, np.memmap) or (
        array is not None and isinstance(array.base, np.ndarray) and mapped(array.base)
    )


def test_arrays_are_mapped_and_read_only(folder: Path) -> None:
    bundle = open_bundle(folder)
    ads, sets = bundle.ads, bundle.filters["category"]
    for array in (ads.bids, ads.vectors.codes, ads.index.values, ads.index.rows, bundle.cells.levels, sets.bitmaps):
        assert mapped(array)
        assert not array.flags.writeable


def test_arrays_without_columns_open(folder: Path) -> None:
    assert open_bundle(folder).ads.numbers.shape == (5, 0)


def test_demo_users(folder: Path) -> None:
    users = open_bundle(folder).users
    assert users is not None
    assert list(users.ids()) == ["u1", "u2"]
    assert unpack_record(users.get("u1") or b"") == small.USERS["u1"]
    assert unpack_record(users.get("u2") or b"") == small.USERS["u2"]
    assert users.get("u3") is None


def test_a_bundle_without_demo_users(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, small.manifest("bare", users=0), small.fill)
    assert open_bundle(folder).users is None


def test_an_existing_id_is_refused_and_left_alone(folder: Path) -> None:
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(FileExistsError, match="small-1 exists, and bundles are never changed"):
        small.small_bundle(folder.parent)
    assert (folder / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_a_failing_fill_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    def fail(building: Path) -> None:
        (building / "half.npy").write_bytes(b"x")
        raise error

    with pytest.raises(type(error)):
        write_bundle(tmp_path / "bundles", small.manifest(), fail)
    assert list((tmp_path / "bundles").iterdir()) == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: flip(f / "query.onnx"), r"query\.onnx: sha256 [0-9a-f]{64}, the manifest says"),
        (lambda f: flip(f / "ads/vectors.npy"), r"ads/vectors\.npy: sha256"),
        (lambda f: (f / "finerank.onnx").write_bytes(b"fine"), r"finerank\.onnx: 4 bytes, the manifest says 15"),
        (lambda f: (f / "golden.npz").unlink(), r"files are missing: \['golden\.npz'\]"),
        (lambda f: (f / "ads/extra.npy").write_bytes(b""), r"does not name: \['ads/extra\.npy'\]"),
    ],
)
def test_damage_is_found_and_the_file_named(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(IntegrityError, match=message):
        verify_files(folder, read_manifest(folder))
    with pytest.raises(IntegrityError, match=message):
        open_bundle(folder)


def test_checksums_may_be_skipped(folder: Path) -> None:
    flip(folder / "query.onnx")
    assert open_bundle(folder, verify=False).id == "small-1"


def save(name: str, array: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        np.save(folder / name, np.asarray(array))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            save("ads/bids.npy", np.zeros(4, np.float32)),
            r"ads/bids\.npy: float32\[4\], the manifest needs float32\[5\]",
        ),
        (save("ads/bids.npy", np.zeros(5)), r"ads/bids\.npy: float64\[5\], the manifest needs float32\[5\]"),
        (save("ads/vectors.npy", np.zeros((5, 3), np.int8)), r"ads/vectors\.npy: int8\[5, 3\], .* int8\[5, 2\]"),
        (
            save("ads/fields.npy", np.zeros((5, 1))),
            r"ads/fields\.npy: float64\[5, 1\], the manifest needs int32\[5, 1\]",
        ),
        (save("ads/ids.npy", np.array([b"ad-1"])), r"ads/ids\.npy: 1 ads, the manifest says 3"),
        (save("ads/ids.npy", np.array([b"b", b"a", b"c"])), r"ads/ids\.npy: not a readable vocabulary: .* must ascend"),
        (save("vocabulary/city.npy", np.array([b"Ulm"])), "'city' has size 4, its vocabulary 3"),
        (lambda f: (f / "vocabulary/city.npy").unlink(), "needs vocabulary 'city', which is not there"),
        (lambda f: (f / "ads/bids.npy").write_bytes(b""), r"ads/bids\.npy: not a readable array"),
        (lambda f: (f / "ads/qscores.npy").unlink(), r"ads/qscores\.npy: not a readable array: .*No such file"),
        (lambda f: (f / "ads/ids.npy").write_bytes(b"PK\x03\x04"), r"ads/ids\.npy: not a readable vocabulary"),
        (lambda f: (f / "users/offsets.npy").unlink(), r"users/offsets\.npy: not a readable array"),
        (save("users/ids.npy", np.array([b"u1"])), r"users: 1 ids, 3 offsets, the manifest says 2"),
        (save("users/offsets.npy", np.array([0, 5, 999])), r"users: .*offsets from 0 to 999 into \d+ bytes"),
        (save("filters/category.places.npy", np.zeros(3, np.int32)), r"filters/category\.places\.npy: int32\[3\]"),
        (save("targeting/scene.bitmaps.npy", np.zeros((3, 2), np.uint8)), r"scene\.bitmaps\.npy: uint8\[3, 2\]"),
        (lambda f: (f / "targeting/scene.values.npy").unlink(), r"scene\.values\.npy: not a readable vocabulary"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    folder = small.small_bundle(tmp_path, change)
    with pytest.raises(ContractError, match=message):
        open_bundle(folder)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    def pickle(folder: Path) -> None:
        np.save(folder / "ads/bids.npy", np.array([{}], dtype=object), allow_pickle=True)

    with pytest.raises(BundleError, match=r"ads/bids\.npy: not a readable array"):
        open_bundle(small.small_bundle(tmp_path, pickle))
