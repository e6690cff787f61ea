"""A bundle on disk: written once, then only read.

    write_bundle   fills a temporary folder, checksums and fsyncs it, renames it to its id
    open_bundle    verifies the checksums and memory-maps the arrays
    verify_files   the checksums alone

Array files, one row an ad after two reserved rows (0 padding, 1 unknown):

    ads/ids.npy       external ids, sorted; ads/rows.npy and ads/places.npy lead from there to rows and back, see
                      ad_index.py. Rows are in the order of cells.
    ads/fields.npy    int32[n + 2, id columns]     ads/numbers.npy  float32[n + 2, number columns]
    ads/bids.npy      float32[n + 2]               ads/qscores.npy  float32[n + 2]
    ads/vectors.npy   int8[n + 2, dimension]       ads/scales.npy   float32[n + 2]; int4 too, see ad_vectors.py
    filters/F.*.npy   the ads with each raw value of ad field F, which requests may filter by; see row_sets.py
    targeting/F.*.npy the ads that may be shown for each value of the request's context field F
    postings/F.rows.npy and postings/F.offsets.npy              rows of the ads with each value of field F
    cells/*.npy       which rows lie near each other, see cells.py
    users/…           packed features of demo users, see DemoUsers
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bundle.ad_index import AdIndex
from bundle.ad_vectors import AdVectors
from bundle.arrays import load_array
from bundle.cell_files import load_cells
from bundle.cells import Cells
from bundle.encoding import Encoder
from bundle.errors import ContractError, IntegrityError
from bundle.manifest import MANIFEST, FileEntry, Manifest, read_manifest
from bundle.row_sets import RowSets, load_row_sets
from bundle.schema import FIRST_KNOWN
from bundle.vocabulary import Vocabulary

SIGNATURE = "manifest.sig"
"""Beside the manifest, and like it not among the files that it announces; see signature.py."""


@dataclass(frozen=True, slots=True)
class Ads:
    """The catalogue's arrays; see the head of this file for shapes."""

    index: AdIndex
    fields: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.float32]
    bids: npt.NDArray[np.float32]
    qscores: npt.NDArray[np.float32]
    vectors: AdVectors

    def worth(self, rows: npt.NDArray[np.int64] | slice) -> npt.NDArray[np.float32]:
        """Qscore × bid of these rows, float32[n]: what matching and Qscore go by."""
        worth: npt.NDArray[np.float32] = self.qscores[rows] * self.bids[rows]
        return worth


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
    cells: Cells
    filters: dict[str, RowSets]
    targeting: dict[str, RowSets]
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
    for wrong in damage(folder, manifest.files):
        raise IntegrityError(wrong)


def damage(folder: Path, files: Mapping[str, FileEntry]) -> Iterator[str]:
    """What is wrong with each file that is missing, was not announced, or has another size or checksum."""
    present, announced = set(_names(folder)), set(files)
    if missing := sorted(announced - present):
        yield f"{folder}: files are missing: {missing}"
    if extra := sorted(present - announced):
        yield f"{folder}: files that the manifest does not name: {extra}"
    for name in sorted(announced & present):
        entry, size = files[name], (folder / name).stat().st_size
        if size != entry.bytes:
            yield f"{folder / name}: {size} bytes, the manifest says {entry.bytes}"
        elif (found := _entry(folder / name).sha256) != entry.sha256:
            yield f"{folder / name}: sha256 {found}, the manifest says {entry.sha256}"


def open_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Open a bundle; `verify=False` skips the checksums (they were checked a moment ago).

    ManifestError, IntegrityError or ContractError say which file and value is wrong.
    """
    manifest = read_manifest(folder)
    if verify:
        verify_files(folder, manifest)
    vocabularies = {p.stem: Vocabulary.load(p) for p in sorted((folder / "vocabulary").glob("*.npy"))}
    ads = _ads(folder / "ads", manifest)
    stages = manifest.stages
    return Bundle(
        folder=folder,
        manifest=manifest,
        encoder=Encoder(manifest.features, vocabularies),
        ads=ads,
        cells=load_cells(folder / "cells", stages.retrieval.cells, stages.prerank.dimension),
        filters={name: load_row_sets(folder / "filters", name, ads.index.size) for name in manifest.catalogue.filters},
        targeting={
            name: load_row_sets(folder / "targeting", name, ads.index.size) for name in manifest.catalogue.targeting
        },
        postings={
            name: Postings(
                load_array(folder / f"postings/{name}.rows.npy"), load_array(folder / f"postings/{name}.offsets.npy")
            )
            for name in stages.retrieval.posting_fields
        },
        users=_demo_users(folder, manifest) if manifest.users else None,
    )


def _demo_users(folder: Path, manifest: Manifest) -> DemoUsers:
    users = DemoUsers(
        Vocabulary.load(folder / "users/ids.npy"),
        load_array(folder / "users/offsets.npy"),
        load_array(folder / "users/records.npy"),
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


def _ads(folder: Path, manifest: Manifest) -> Ads:
    rows, side = manifest.catalogue.ads + FIRST_KNOWN, manifest.features.ad
    prerank = manifest.stages.prerank
    return Ads(
        index=AdIndex.open(folder, manifest.catalogue.ads),
        fields=load_array(folder / "fields.npy", "int32", (rows, side.id_columns)),
        numbers=load_array(folder / "numbers.npy", "float32", (rows, side.number_columns)),
        bids=load_array(folder / "bids.npy", "float32", (rows,)),
        qscores=load_array(folder / "qscores.npy", "float32", (rows,)),
        vectors=AdVectors.open(folder, rows, prerank.dimension, prerank.vectors),
    )


def _names(folder: Path) -> list[str]:
    """Relative names of all files but the manifest and its signatures."""
    paths = (p for p in folder.rglob("*") if p.is_file())
    return sorted(name for p in paths if (name := p.relative_to(folder).as_posix()) not in (MANIFEST, SIGNATURE))


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(sha256=hashlib.file_digest(file, "sha256").hexdigest(), bytes=path.stat().st_size)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
