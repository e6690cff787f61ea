"""A prepared dataset on disk: what `adrank prepare` writes and training reads.

    schema.json            Prepared: feature schema, sizes of the splits, the description it was made from
    vocabulary/NAME.npy    one Vocabulary each
    ads/                   ids.npy, fields.npy, numbers.npy, bids.npy as in a bundle (row 0 padding, 1 unknown, ads)
    filters/               F.codes.npy int32[rows], the id of each ad's raw value in F.values.npy, a Vocabulary
    targeting/             F.codes.npy int32[m], ids in F.values.npy; F.offsets.npy int64[rows + 1]: the ad of row r may
                           be shown for codes[offsets[r]:offsets[r+1]] of context field F, everywhere if it has none
    vectors/F.npy          float16 or float32[size, width]: the vector of each id of ad field F (models/data/vectors.py)
    users/                 ids.npy, offsets.npy, records.npy: packed records at the end of the log, as in a bundle
    train/ valid/ test/    part-NNNNN.parquet, request-grouped: one row a request

Columns of a part, R requests:

    user int64             index of the user, the same over all splits (for GAUC)
    time int64             the log's time
    user_ids fixed_size_list<int32>[Cu]        user_numbers fixed_size_list<float>[Nu]        (absent where width is 0)
    context_ids fixed_size_list<int32>[Cc]     context_numbers fixed_size_list<float>[Nc]     (absent where width is 0)
    history_NAME list<int32>                   of ads: catalogue rows; else ids, flattened [length * columns]
    ads list<int32>                            catalogue rows of the candidates
    labels list<int8>
    positions list<int16>                      (only when known)
    truth list<float>                          (only for simulated data)
    label_NAME list<int8>                      further labels, of descriptions that name some
    truth_NAME list<float>                     (only for simulated data)
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from bundle.errors import ContractError
from bundle.schema import FeatureSchema, Frozen
from bundle.vocabulary import Vocabulary
from models.data.spec import CLICK, DataError, DatasetSpec, describe

Vectors = npt.NDArray[np.floating]

SPLITS = ("train", "valid", "test")


class SplitSize(Frozen):
    """How much one split holds."""

    requests: int
    impressions: int
    clicks: int
    further: dict[str, int] = Field(default_factory=dict)
    """Impressions that have a further label, by its name."""


class Prepared(Frozen):
    """schema.json."""

    format: int = 1
    spec: DatasetSpec
    features: FeatureSchema
    users: int
    """Number of distinct users over all splits."""
    splits: dict[str, SplitSize]
    fingerprint: str
    """Hash of the description, the source files' names, sizes and times, and the base: if it differs, data is prepared
    anew."""
    without_vector: dict[str, int] = Field(default_factory=dict)
    """Ad field with vectors -> how many of its values have none; theirs is zeros."""


@dataclass(frozen=True, slots=True)
class PreparedAds:
    """The encoded catalogue, rows as in a bundle."""

    index: Vocabulary
    fields: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.float32]
    bids: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PreparedData:
    """An opened prepared dataset."""

    folder: Path
    prepared: Prepared
    ads: PreparedAds
    vocabularies: dict[str, Vocabulary]
    vectors: dict[str, Vectors] = field(default_factory=dict)
    """Ad field -> the fixed vector of each of its ids, memory-mapped."""
    since: int | float | None = None
    """Of the training split, only requests at this time or later are read (`batches.recent` sets it). None: all."""
    only: tuple[int, int] | None = None
    """Column of the encoded context, and the one id whose requests `batches` reads. None: all requests."""
    label: str = CLICK
    """The label that batches call theirs (models/labels.py sets it)."""

    @property
    def schema(self) -> FeatureSchema:
        """The feature schema."""
        return self.prepared.features

    def parts(self, split: str) -> list[Path]:
        """The Parquet files of one split, in order. DataError when the split is empty."""
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}, known: {', '.join(SPLITS)}")
        parts = sorted((self.folder / split).glob("part-*.parquet"))
        if not parts:
            raise DataError(f"{self.folder}: split {split!r} is empty")
        return parts


def open_prepared(folder: Path) -> PreparedData:
    """Open what `prepare` wrote. DataError names the file that is missing or wrong."""
    path = folder / "schema.json"
    try:
        prepared = Prepared.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; `adrank prepare` makes it") from error
    except ValidationError as error:
        raise DataError(describe(path, error)) from error

    def array(name: str) -> npt.NDArray[np.float32]:
        loaded: npt.NDArray[np.float32] = np.load(folder / "ads" / f"{name}.npy", allow_pickle=False)
        return loaded

    try:
        index = Vocabulary.load(folder / "ads/ids.npy")
        ads = PreparedAds(index, array("fields").astype(np.int32), array("numbers"), array("bids"))
        vocabularies = {p.stem: Vocabulary.load(p) for p in sorted((folder / "vocabulary").glob("*.npy"))}
        vectors = {path.stem: _mapped(path) for path in sorted((folder / "vectors").glob("*.npy"))}
    except (OSError, ValueError, EOFError, ContractError) as error:
        raise DataError(f"{folder}: an array cannot be read: {error}") from error
    return PreparedData(folder, prepared, ads, vocabularies, vectors)


def _mapped(path: Path) -> Vectors:
    mapped: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    return mapped


def find_prepared(place: Path, fingerprint: str) -> PreparedData:
    """The prepared dataset with this fingerprint: `place` itself, or one of the folders in it. DataError otherwise."""
    found: list[str] = []
    for path in [place / "schema.json", *sorted(place.glob("*/schema.json"))]:
        if path.exists():
            data = open_prepared(path.parent)
            if data.prepared.fingerprint == fingerprint:
                return data
            found.append(f"{path.parent.name} {data.prepared.fingerprint[:12]}")
    raise DataError(
        f"{place}: holds no prepared data with fingerprint {fingerprint[:12]}, only {', '.join(found) or 'nothing'}; "
        "`adrank train` prepares what it trains on"
    )
