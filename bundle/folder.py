"""A bundle on disk: written once, then only read.

    write_bundle   fills a temporary folder, checksums and fsyncs it, renames it to its id
    open_bundle    verifies the checksums and memory-maps the arrays
    verify_files   the checksums alone

Array files, one row an ad after two reserved rows (0 padding, 1 unknown):

    ads/ids.npy       external ids, sorted: a Vocabulary of n ads, whose ids are the rows of all other arrays
    ads/fields.npy    int32[n + 2, id columns]     ads/numbers.npy  float32[n + 2, number columns]
    ads/bids.npy      float32[n + 2]               ads/qscores.npy  float32[n + 2]
    ads/vectors.npy   float32[n + 2, dimension]
    filters/F.codes.npy int32[n + 2] and filters/F.values.npy   raw values a request may filter by
    postings/F.rows.npy and postings/F.offsets.npy              rows of the ads with each value of field F
    retrieval/index.faiss   over the vectors of all ads; the labels it returns are rows
    users/…           packed features of demo users, see DemoUsers
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.encoding import Encoder
from bundle.errors import ContractError, IntegrityError
from bundle.manifest import MANIFEST, FileEntry, Manifest, read_manifest
from bundle.schema import FIRST_KNOWN
from bundle.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Ads:
    """The catalogue's arrays; see the head of this file for shapes."""

    index: Vocabulary
    fields: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.float32]
    bids: npt.NDArray[np.float32]
    qscores: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Filter:
    """Raw values of one ad field: codes[row] is the id of the ad's value in `values`."""

    codes: npt.NDArray[np.int32]
    values: Vocabulary


@dataclass(frozen=True, slots=True)
class Postings:
    """Rows of the ads that have field value v, largest Qscore × bid first: rows[offsets[v]:offsets[v+1]]."""

    rows: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DemoUsers:
    """Packed records (bundle/record.py) of some users: value i is records[offsets[i]:offsets[i+1]]."""

    index: Vocabulary
    offsets: npt.NDArray[np.int64]
    records: npt.NDArray[np.uint8]

    def get(self, user_id: str) -> bytes | None:
        """The packed record of a user, None for an unknown one."""
        position = self.index.id_of(user_id) - FIRST_KNOWN
        if position < 0:
            return None
        return self.records[self.offsets[position] : self.offsets[position + 1]].tobytes()

    def ids(self) -> Iterable[str]:
        """All user ids."""
        return (value.decode() for value in self.index.values.tolist())


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle. Arrays are memory-mapped and read-only."""

    folder: Path
    manifest: Manifest
    encoder: Encoder
    ads: Ads
    filters: dict[str, Filter]
    postings: dict[str, Postings]
    users: DemoUsers | None

    @property
    def id(self) -> str:
        """The bundle's name."""
        return self.manifest.bundle_id


def write_bundle(root: Path, manifest: Manifest, fill: Callable[[Path], None]) -> Path:
    """Make `root/<bundle_id>` and return it.

    `fill` writes every file but the manifest into the folder it is given. The bundle appears under its name only when
    complete; an existing one is never overwritten (FileExistsError).
    """
    target = root / manifest.bundle_id
    if target.exists():
        raise FileExistsError(f"{target} exists, and bundles are never changed: choose another bundle id")
    root.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{manifest.bundle_id}.", dir=root))
    try:
        fill(building)
        files = {name: _entry(building / name) for name in _names(building)}
        complete = manifest.model_copy(update={"files": files})
        (building / MANIFEST).write_text(complete.model_dump_json(indent=2) + "\n")
        read_manifest(building)  # what cannot be read back (a figure that is not finite) is not published
        for path in [*building.rglob("*"), building]:
            _fsync(path)
        building.chmod(0o755)
        building.rename(target)
        _fsync(root)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return target


def verify_files(folder: Path, manifest: Manifest) -> None:
    """IntegrityError unless exactly the announced files are there, each with its size and checksum."""
    present, announced = set(_names(folder)), set(manifest.files)
    if missing := sorted(announced - present):
        raise IntegrityError(f"{folder}: files are missing: {missing}")
    if extra := sorted(present - announced):
        raise IntegrityError(f"{folder}: files that the manifest does not name: {extra}")
    for name, entry in manifest.files.items():
        size = (folder / name).stat().st_size
        if size != entry.bytes:
            raise IntegrityError(f"{folder / name}: {size} bytes, the manifest says {entry.bytes}")
        if (found := _entry(folder / name).sha256) != entry.sha256:
            raise IntegrityError(f"{folder / name}: sha256 {found}, the manifest says {entry.sha256}")


def open_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Open a bundle; `verify=False` skips the checksums (they were checked a moment ago).

    ManifestError, IntegrityError or ContractError say which file and value is wrong.
    """
    manifest = read_manifest(folder)
    if verify:
        verify_files(folder, manifest)
    vocabularies = {p.stem: Vocabulary.load(p) for p in sorted((folder / "vocabulary").glob("*.npy"))}
    ads = Ads(
        index=Vocabulary.load(folder / "ads/ids.npy"),
        fields=_load(folder / "ads/fields.npy"),
        numbers=_load(folder / "ads/numbers.npy"),
        bids=_load(folder / "ads/bids.npy"),
        qscores=_load(folder / "ads/qscores.npy"),
        vectors=_load(folder / "ads/vectors.npy"),
    )
    _check_ads(folder, manifest, ads)
    return Bundle(
        folder=folder,
        manifest=manifest,
        encoder=Encoder(manifest.features, vocabularies),
        ads=ads,
        filters={
            name: _filter(folder, name, manifest.catalogue.ads + FIRST_KNOWN) for name in manifest.catalogue.filters
        },
        postings={
            name: Postings(_load(folder / f"postings/{name}.rows.npy"), _load(folder / f"postings/{name}.offsets.npy"))
            for name in manifest.stages.retrieval.posting_fields
        },
        users=_demo_users(folder, manifest) if manifest.users else None,
    )


def _demo_users(folder: Path, manifest: Manifest) -> DemoUsers:
    users = DemoUsers(
        Vocabulary.load(folder / "users/ids.npy"),
        _load(folder / "users/offsets.npy"),
        _load(folder / "users/records.npy"),
    )
    ids, offsets = len(users.index), users.offsets
    if ids != manifest.users or offsets.shape != (ids + 1,):
        raise ContractError(
            f"{folder}/users: {ids} ids, {offsets.size} offsets, the manifest says {manifest.users} users"
        )
    if offsets[0] != 0 or offsets[-1] != users.records.size or (np.diff(offsets) < 0).any():
        raise ContractError(
            f"{folder}/users: offsets from {offsets[0]} to {offsets[-1]} into {users.records.size} bytes, "
            "they must ascend from the first byte to the last"
        )
    return users


def _filter(folder: Path, name: str, rows: int) -> Filter:
    path = folder / f"filters/{name}.codes.npy"
    codes = _load(path)
    if codes.shape != (rows,) or codes.dtype != np.int32:
        raise ContractError(f"{path}: {codes.dtype}{list(codes.shape)}, the manifest needs int32[{rows}]")
    return Filter(codes, Vocabulary.load(folder / f"filters/{name}.values.npy"))


def _check_ads(folder: Path, manifest: Manifest, ads: Ads) -> None:
    rows = manifest.catalogue.ads + FIRST_KNOWN
    side = manifest.features.ad
    expected: dict[str, tuple[npt.NDArray[Any], tuple[int, ...], str]] = {
        "fields": (ads.fields, (rows, side.id_columns), "int32"),
        "numbers": (ads.numbers, (rows, side.number_columns), "float32"),
        "bids": (ads.bids, (rows,), "float32"),
        "qscores": (ads.qscores, (rows,), "float32"),
        "vectors": (ads.vectors, (rows, manifest.stages.prerank.dimension), "float32"),
    }
    if ads.index.size != rows:
        raise ContractError(f"{folder}/ads/ids.npy: {len(ads.index)} ads, the manifest says {manifest.catalogue.ads}")
    for name, (array, shape, dtype) in expected.items():
        if array.shape != shape or array.dtype != dtype:
            raise ContractError(
                f"{folder}/ads/{name}.npy: {array.dtype}{list(array.shape)}, the manifest needs {dtype}{list(shape)}"
            )


def _load(path: Path) -> npt.NDArray[Any]:
    """A read-only memory map. ContractError when it is no array."""
    try:
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: not a readable array: {error}") from error
    return array


def _names(folder: Path) -> list[str]:
    """Relative names of all files but the manifest."""
    paths = (p for p in folder.rglob("*") if p.is_file())
    return sorted(name for p in paths if (name := p.relative_to(folder).as_posix()) != MANIFEST)


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
