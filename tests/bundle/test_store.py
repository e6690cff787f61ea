"""Bundles are published whole or not at all, and fetched once."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from bundle.command import main
from bundle.errors import IntegrityError, PlaceError, UnreachableError
from bundle.folder import SIGNATURE, open_bundle
from bundle.manifest import MANIFEST
from bundle.signature import check_signature, make_key, sign
from bundle.store import BundleStore, publish
from tests.bundle import small
from tests.bundle.s3 import s3_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.small_bundle(tmp_path / "made")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the environment of a client of the S3 server says."""
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as environment:
        yield environment


@pytest.fixture(params=["file", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty place."""
    if request.param == "s3":
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
        s3fs = fsspec.filesystem("s3", skip_instance_cache=True)
        bucket = f"models-{tmp_path.name.replace('_', '-').lower()[:40].strip('-[]')}"
        s3fs.mkdir(bucket)
        yield f"s3://{bucket}/bundles"
        s3fs.rm(bucket, recursive=True)
        return
    if request.param == "file":
        yield f"file://{tmp_path}/remote"
        return
    memory = fsspec.filesystem("memory")
    yield "memory://bundles"
    memory.rm("/bundles", recursive=True)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_published_can_be_fetched(folder: Path, place: str, tmp_path: Path) -> None:
    public = make_key(tmp_path / "key.pem")
    sign(folder, tmp_path / "key.pem")
    publish(folder, place)
    fetched = BundleStore(place, tmp_path / "cache").fetch("small-1")
    assert fetched == tmp_path / "cache/small-1"
    assert names(fetched) == names(folder)
    assert open_bundle(fetched).id == "small-1"
    assert check_signature(fetched, [public]) == 1


def test_it_is_fetched_once(folder: Path, tmp_path: Path) -> None:
    publish(folder, f"file://{tmp_path}/remote")
    store = BundleStore(f"file://{tmp_path}/remote", tmp_path / "cache")
    first = store.fetch("small-1")
    shutil.rmtree(tmp_path / "remote")
    assert store.fetch("small-1") == first
    store.forget("small-1")
    assert not first.exists()
    with pytest.raises(PlaceError, match="has no bundle 'small-1'"):
        store.fetch("small-1")


def test_several_at_once_make_one_copy(folder: Path, place: str, tmp_path: Path) -> None:
    publish(folder, place)
    with ThreadPoolExecutor(4) as pool:
        stores = [BundleStore(place, tmp_path / "cache") for _ in range(4)]
        found = list(pool.map(lambda store: store.fetch("small-1"), stores))
    assert set(found) == {tmp_path / "cache/small-1"}
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".small-1.lock", "small-1"]


def test_a_bundle_without_its_manifest_is_not_there_yet(folder: Path, tmp_path: Path) -> None:
    publish(folder, f"file://{tmp_path}/remote")
    (tmp_path / "remote/small-1" / MANIFEST).unlink()
    store = BundleStore(f"file://{tmp_path}/remote", tmp_path / "cache")
    with pytest.raises(PlaceError, match=r"has no bundle 'small-1': there is no .*small-1/manifest\.json"):
        store.fetch("small-1")
    publish(folder, f"file://{tmp_path}/remote")  # what was interrupted is taken up again
    assert open_bundle(store.fetch("small-1")).id == "small-1"


def test_a_copy_that_fails_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    publish(folder, f"file://{tmp_path}/remote")
    broken = tmp_path / "remote/small-1/golden.npz"
    broken.unlink()
    broken.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UnreachableError):
        BundleStore(f"file://{tmp_path}/remote", tmp_path / "cache").fetch("small-1")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [".small-1.lock"]


def test_a_published_bundle_is_never_overwritten(folder: Path, place: str) -> None:
    publish(folder, place)
    with pytest.raises(PlaceError, match="small-1 exists, and bundles are never changed"):
        publish(folder, place)


def test_a_damaged_bundle_is_not_published(folder: Path, tmp_path: Path) -> None:
    (folder / "golden.npz").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"golden\.npz: 0 bytes"):
        publish(folder, f"file://{tmp_path}/remote")
    assert not (tmp_path / "remote").exists()


def test_copies_that_were_not_asked_for_lately_go(folder: Path, tmp_path: Path) -> None:
    place, cache = f"file://{tmp_path}/remote", tmp_path / "cache"
    ids = ["a", "b", "c", "d"]
    for each in ids:
        publish(small.small_bundle(tmp_path / "more", bundle_id=each), place)
    store = BundleStore(place, cache, keep=2)
    for i, each in enumerate(ids[:3]):
        os.utime(store.fetch(each, in_use=["a"]), (i, i))
    assert {path.name for path in cache.iterdir() if not path.name.startswith(".")} == {"a", "b", "c"}
    store.fetch("d", in_use=["a"])
    assert {path.name for path in cache.iterdir() if not path.name.startswith(".")} == {"a", "c", "d"}


def test_a_folder_is_used_as_it_is(folder: Path, tmp_path: Path) -> None:
    store = BundleStore(str(folder.parent), tmp_path / "cache")
    assert store.fetch("small-1") == folder
    store.forget("small-1")
    assert folder.is_dir()
    assert not (tmp_path / "cache").exists()
    with pytest.raises(PlaceError, match="has no bundle 'small-2'"):
        store.fetch("small-2")


@pytest.mark.parametrize("bundle_id", ["..", "../small-1", "a/b", "", ".hidden", "x" * 129])
def test_what_is_no_id_is_refused(tmp_path: Path, bundle_id: str) -> None:
    with pytest.raises(PlaceError, match="is no bundle's id"):
        BundleStore(str(tmp_path), tmp_path / "cache").fetch(bundle_id)


def test_a_place_that_nobody_knows_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="nowhere://x: ValueError: Protocol not known: nowhere"):
        BundleStore("nowhere://x", tmp_path / "cache").fetch("small-1")
    with pytest.raises(UnreachableError, match="Protocol not known"):
        publish(folder, "nowhere://x")


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(folder), str(tmp_path / "remote")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/remote/small-1\n"
    assert names(tmp_path / "remote/small-1") == names(folder)
    assert SIGNATURE not in names(folder)
    assert main(["publish", str(folder), str(tmp_path / "remote")]) == 1
    assert "bundles are never changed" in capsys.readouterr().err
