"""Where published bundles are: a folder, or a URL of any storage that fsspec knows. The one door to fsspec.

    PLACE/BUNDLE_ID/...     as in the bundle's folder

`publish` writes manifest.json last, and what has no manifest.json is not there yet: object stores cannot rename.
Bundles of a URL are copied into a cache folder on first use, under a temporary name that is renamed once.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from tqdm import tqdm

from bundle.errors import PlaceError, UnreachableError
from bundle.folder import SIGNATURE, verify_files
from bundle.manifest import MANIFEST, read_manifest

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Of a bundle, as manifest.py has it: it becomes part of a path."""


class BundleStore:
    """Bundles of one place, as folders on this machine. Several processes may share one cache."""

    def __init__(self, place: str, cache: Path, keep: int = 8) -> None:
        """`place`: a folder, or a URL. `cache`: where bundles of a URL are kept, at most `keep` of them."""
        self.place = place
        self._cache = cache
        self._keep = keep
        self._is_remote = is_url(place)

    def path_of(self, bundle_id: str) -> Path:
        """Where the bundle's folder is, or will be once it is fetched. PlaceError for what is no bundle's id."""
        if not ID.fullmatch(bundle_id):
            raise PlaceError(f"{bundle_id!r} is no bundle's id: {ID.pattern}")
        return (self._cache if self._is_remote else Path(self.place)) / bundle_id

    def fetch(self, bundle_id: str, in_use: Collection[str] = ()) -> Path:
        """The bundle's folder, copied here first where that is needed. Blocks; processes that want the same bundle take
        turns, and the first one copies it.

        Of copies that were not asked for lately, those beyond `keep` are removed, but never one `in_use`. PlaceError
        when the place does not have the bundle or the disk is too small, UnreachableError when it does not answer.
        """
        folder = self.path_of(bundle_id)
        if not self._is_remote:
            if not (folder / MANIFEST).is_file():
                raise PlaceError(f"{self.place} has no bundle {bundle_id!r}: there is no {folder / MANIFEST}")
            return folder
        self._cache.mkdir(parents=True, exist_ok=True)
        with _locked(self._cache / f".{bundle_id}.lock"):
            if folder.is_dir():
                os.utime(folder)
            else:
                self._copy(bundle_id, folder)
                self._prune({bundle_id, *in_use})
        return folder

    def forget(self, bundle_id: str) -> None:
        """Remove the copy, so that the next fetch makes it anew. A place that is a folder keeps what it has."""
        if self._is_remote and (folder := self.path_of(bundle_id)).is_dir():
            _remove(folder)

    def _copy(self, bundle_id: str, folder: Path) -> None:
        with _named(self.place):
            system, root = _opened(self.place)
            system.invalidate_cache()
            source = f"{root}/{bundle_id}"
            found: dict[str, Any] = system.find(source, detail=True)
        sizes = {name.removeprefix(source).lstrip("/"): int(info["size"] or 0) for name, info in found.items()}
        if MANIFEST not in sizes:
            raise PlaceError(f"{self.place} has no bundle {bundle_id!r}: there is no {source}/{MANIFEST}")
        if strange := [
            name for name in sizes if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute()
        ]:
            raise PlaceError(f"{self.place}: {bundle_id!r} has files outside of itself: {strange}")
        total, free = sum(sizes.values()), shutil.disk_usage(self._cache).free
        if total > free:
            raise PlaceError(f"{self._cache}: {free:,} bytes are free, {bundle_id!r} has {total:,}")
        building = Path(tempfile.mkdtemp(prefix=f".{bundle_id}.", dir=self._cache))
        try:
            for name in sizes:
                (building / name).parent.mkdir(parents=True, exist_ok=True)
                with _named(self.place):
                    system.get_file(f"{source}/{name}", str(building / name))
            building.chmod(0o755)
            building.rename(folder)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise

    def _prune(self, spared: Collection[str]) -> None:
        copies = [path for path in self._cache.iterdir() if path.is_dir() and ID.fullmatch(path.name)]
        copies.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in copies[self._keep :]:
            if path.name not in spared:
                _remove(path)


def publish(folder: Path, place: str) -> str:
    """Copy a bundle that is whole to `place`, and return where it is then. PlaceError when the place has one of that
    id, UnreachableError when it does not take it; what `verify_files` raises for one that is not whole."""
    manifest = read_manifest(folder)
    verify_files(folder, manifest)
    signed = [SIGNATURE] if (folder / SIGNATURE).is_file() else []
    with _named(place):
        system, root = _opened(place if is_url(place) else str(Path(place).absolute()))
        target = f"{root}/{manifest.bundle_id}"
        system.invalidate_cache()
        if system.exists(f"{target}/{MANIFEST}"):
            raise PlaceError(f"{target} exists, and bundles are never changed: choose another bundle id")
        for name in tqdm([*sorted(manifest.files), *signed, MANIFEST], desc="publish", unit="file", disable=None):
            system.makedirs(f"{target}/{name}".rpartition("/")[0], exist_ok=True)
            system.put_file(str(folder / name), f"{target}/{name}")
    return target


def is_url(place: str) -> bool:
    """Whether it is a URL; otherwise it is a folder of this machine."""
    return "://" in place


def _opened(place: str) -> tuple[Any, str]:
    system, root = fsspec.core.url_to_fs(place)
    return system, root.rstrip("/")


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Whatever a storage raises as an UnreachableError."""
    try:
        yield
    except PlaceError:
        raise
    except Exception as error:  # each storage has errors of its own
        raise UnreachableError(f"{place}: {type(error).__name__}: {str(error)[:300]}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time. The system lets go of the lock of a process that dies."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove(folder: Path) -> None:
    """Out of sight in one step, then gone. Who has its files mapped keeps them."""
    hidden = Path(tempfile.mkdtemp(prefix=".gone.", dir=folder.parent))
    folder.rename(hidden / folder.name)
    shutil.rmtree(hidden, ignore_errors=True)
