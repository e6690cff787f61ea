"""Raw click log -> request-grouped Parquet, vocabularies and packed users. See models/data/prepared.py for the layout.

read      a reader opens the source                                   readers/
check     every column is where the description says                  layout.py, description.py
deal      one pass: validate, count, deal out by user                 partition.py, gathering.py, counting.py
fit       vocabularies, bucket edges, schema, from training only      fit.py, base.py
write     vectors in the order of ids                         vectors.py
          catalogue; then requests and packed users by partition      catalogue.py, requests.py, records.py
"""

import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from models.data.base import Base
from models.data.catalogue import write_catalogue
from models.data.digests import Digests
from models.data.fit import fit
from models.data.layout import lay_out
from models.data.partition import MOST_PARTITIONS, partition_log, partitions_for
from models.data.people import number_users, open_partition
from models.data.prepared import SPLITS, Prepared, PreparedData, SplitSize, open_prepared
from models.data.readers import kuairand, movielens, table, taobao
from models.data.readers.raw import CHUNK_ROWS, Reader
from models.data.records import RecordWriter
from models.data.requests import write_requests
from models.data.spec import DataError, DatasetSpec
from models.data.vectors import open_vectors, vector_files, write_vectors

DIGESTS = "digests.json"
"""Beside the prepared data: what is known of source files (models/data/digests.py)."""
FORMAT = 3
"""Part of the fingerprint: to be raised when the same source would be prepared differently."""

READERS: dict[str, Reader] = {
    "kuairand": kuairand.READER,
    "taobao": taobao.READER,
    "movielens": movielens.READER,
    "table": table.READER,
}


def fingerprint(spec: DatasetSpec, data: Path, base: Base | None = None, *, digests: Digests | None = None) -> str:
    """Hash of the description, of the source files' names and contents, and of the base's features.

    What was added to descriptions later is left out where it is not given. `digests`: what is known of the files.
    DataError when a file is missing.
    """
    paths = READERS[spec.source].files(spec, data) + vector_files(spec, data)
    names = [path.relative_to(data).as_posix() for path in paths]
    files = list(zip(names, (digests or Digests()).of(paths), strict=True))
    absent = {name for name in ("targeting", "labels") if not getattr(spec, name)}
    described = spec.model_dump(mode="json", exclude=absent)
    if spec.split.until is None:
        del described["split"]["until"]
    on = [] if base is None else [base.digest()]
    return hashlib.sha256(json.dumps([FORMAT, described, files, *on]).encode()).hexdigest()


def ensure_prepared(
    spec: DatasetSpec,
    data: Path,
    root: Path = Path("artifacts/data"),
    progress: bool = True,
    base: Base | None = None,
) -> PreparedData:
    """The dataset under `root`, prepared now unless the same description and files were prepared before on `base`."""
    out = prepared_folder(spec, data, root, base)
    if (out / "schema.json").exists():
        return open_prepared(out)
    return prepare(spec, data, out, progress=progress, base=base, digests=Digests(root / DIGESTS))


def prepared_folder(spec: DatasetSpec, data: Path, root: Path, base: Base | None = None) -> Path:
    """Where `ensure_prepared` keeps it."""
    return root / f"{spec.name}-{fingerprint(spec, data, base, digests=Digests(root / DIGESTS))[:12]}"


def prepare(
    spec: DatasetSpec,
    data: Path,
    out: Path,
    *,
    partitions: int | None = None,
    progress: bool = True,
    force: bool = False,
    chunk_rows: int = CHUNK_ROWS,
    base: Base | None = None,
    digests: Digests | None = None,
) -> PreparedData:
    """Prepare the source in folder `data` as `out`, which appears only when complete.

    The log is read in pieces of at most `chunk_rows` rows and dealt out by user to `partitions` temporary files (None:
    as many as keep each near a million rows), so memory does not grow with the log. An existing `out` is refused
    unless `force`. On a `base`, values keep their meaning: its edges and scales stay, its vocabularies grow. DataError
    says what is wrong with the description or the data.
    """
    if out.exists() and not force:
        raise DataError(f"{out}: exists already; remove it, or use --force")
    if out.exists() and not (out / "schema.json").is_file():
        raise DataError(f"{out}: is no prepared dataset, and is not replaced")
    if partitions is not None and not 1 <= partitions <= MOST_PARTITIONS:
        raise DataError(f"partitions is {partitions}, from 1 to {MOST_PARTITIONS} are possible")
    if base is not None:
        base.check(spec)
    identity = fingerprint(spec, data, base, digests=digests)
    out.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _build(building, spec, data, identity, partitions, progress, chunk_rows, base)
        building.chmod(0o755)
        opened = open_prepared(building)  # what could not be read back never gets its name
        _publish(building, out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return replace(opened, folder=out)


def _build(
    folder: Path, spec: DatasetSpec, data: Path, identity: str, partitions: int | None, progress: bool, chunk_rows: int,
    base: Base | None,
) -> None:  # fmt: skip
    layout = lay_out(spec, READERS[spec.source].open(spec, data, chunk_rows))
    vectors = open_vectors(spec, data)
    count = partitions or partitions_for(layout)
    scratch = folder / "scratch"
    for name in ("scratch", "vocabulary", "users", *SPLITS):
        (folder / name).mkdir()
    gathered = partition_log(layout, scratch, count, progress=progress)
    fitted = fit(layout, gathered, {name: source.width for name, source in vectors.items()})
    if base is not None:
        fitted = base.extended(fitted)
    for name, vocabulary in fitted.encoder.vocabularies.items():
        vocabulary.save(folder / "vocabulary" / f"{name}.npy")
    side = fitted.encoder.schema.ad
    of_field = {each.name: fitted.encoder.vocabulary_of(each) for each in side.id_fields if each.vector}
    missing = write_vectors(folder / "vectors", vectors, of_field)
    write_catalogue(folder, spec, fitted)
    numbered = number_users(gathered.users.total())
    sizes = []
    with RecordWriter(scratch) as records:
        for number in tqdm(range(count), unit="part", desc="grouping requests", disable=not progress):
            part = open_partition(layout, numbered, scratch, number, count)
            if not part.log.is_empty():
                sizes.append(write_requests(folder, number, layout, fitted, part))
            records.add(layout, part)
        records.finish(folder / "users")
    shutil.rmtree(scratch)
    prepared = Prepared(
        spec=spec,
        features=fitted.encoder.schema,
        users=len(numbered),
        splits={name: _sum([each[i] for each in sizes]) for i, name in enumerate(SPLITS)},
        fingerprint=identity,
        without_vector=missing,
    )
    (folder / "schema.json").write_text(prepared.model_dump_json(indent=2) + "\n")


def _sum(sizes: list[SplitSize]) -> SplitSize:
    return SplitSize(
        requests=sum(size.requests for size in sizes),
        impressions=sum(size.impressions for size in sizes),
        clicks=sum(size.clicks for size in sizes),
        further={name: sum(size.further[name] for size in sizes) for name in (sizes[0].further if sizes else ())},
    )


def _publish(building: Path, out: Path) -> None:
    """Give the complete folder its name; one that stands there gives way only now."""
    if out.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
        out.rename(old / "data")
        building.rename(out)
        shutil.rmtree(old)
    else:
        building.rename(out)
