"""manifest.json: what a bundle is, what its stages need, and the checksum of every file.

`format` changes when the meaning of a key changes; unknown and missing keys are refused.
"""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from bundle.calibration import Calibration
from bundle.certificate import Certificate
from bundle.errors import ManifestError
from bundle.ladder import FULL, RungName, Worth, complaint
from bundle.precision import Precision
from bundle.rounding import Coded
from bundle.schema import FeatureSchema, Frozen

MANIFEST = "manifest.json"

Dimension = str | int
"""An axis: a fixed length, or the name of one that varies from call to call."""


class TensorSpec(Frozen):
    """One input or output of a graph."""

    name: str
    dtype: Literal["int64", "float32"]
    shape: tuple[Dimension, ...]


class GraphSpec(Frozen):
    """One ONNX file with its exact interface, compared with the session's own when the bundle is loaded."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: str | None = None
    """The file that holds its large weights, None when it has none; mapped, so that processes share one copy."""
    precision: Precision = Precision()


Label = Annotated[str, Field(min_length=1)]
"""What a stage's scores are the probability of: `click`, or another label of the data, such as `like`."""


class RetrievalStage(Frozen):
    """Matching: the cells of ads nearest to the user's query vector, and posting lists of the user's interests."""

    keep: int = Field(gt=0)
    """At most this many ads leave the stage."""
    cells: int = Field(ge=0)
    """Cells that the catalogue is divided into; 0 when it has no ads."""
    posting_fields: tuple[str, ...] = ()
    """Ad fields that have posting lists, each list in order of falling Qscore × bid."""
    interests: int = Field(default=4, ge=0)
    """Values of a posting field taken from the user's history: the most frequent, recent ones first."""
    per_interest: int = Field(default=200, ge=0)
    """Ads taken from each of those posting lists."""


class QscoreStage(Frozen):
    """Static smoothed click-through rate of each ad."""

    keep: int = Field(gt=0)
    label: Label = "click"


class PrerankStage(Frozen):
    """DQM: one query vector a request, inner product with the stored ad vectors."""

    model: str
    label: Label = "click"
    query: GraphSpec
    dimension: int = Field(gt=0)
    vectors: Coded = "int8"
    """What the ad vectors are stored in (bundle/ad_vectors.py)."""
    keep: int = Field(gt=0)
    calibration: Calibration | None = None
    """How its logits are corrected; None: not at all."""


class FixedPosition(Frozen):
    """What is assumed of the position of ads that are yet to be ranked, where the network was trained to know it."""

    position: int = Field(ge=0)
    """All candidates are scored as if shown there; 0 is the first."""
    bias: float
    """What that adds to every logit; the graph adds it."""


class Rung(Frozen):
    """A further fine-ranker of the ladder, cheaper than the one above it."""

    name: RungName
    model: str
    graph: GraphSpec
    position: FixedPosition | None = None
    calibration: Calibration | None = None
    certificate: Certificate | None = None
    """As those of the stage."""
    worth: Worth


class FinerankStage(Frozen):
    """The network that reads user, history, context and candidate together."""

    model: str
    label: Label = "click"
    graph: GraphSpec
    position: FixedPosition | None = None
    """None: the network has no bias of the position."""
    keep: int = Field(gt=0)
    """At most this many ads are returned, whatever k a request asks for."""
    calibration: Calibration | None = None
    """How its logits are corrected; None: not at all."""
    certificate: Certificate | None = None
    """What a compressed network was measured to be worth; None: it is as it was trained."""
    worth: Worth | None = None
    """What it costs beside the rungs of the ladder; None: there are none."""
    ladder: tuple[Rung, ...] = ()
    """Cheaper fine-rankers, in falling cost, that a service may take instead when time is short."""

    @model_validator(mode="after")
    def _is_a_ladder(self) -> Self:
        if self.ladder and self.worth is None:
            raise ValueError(f"there is a ladder of {len(self.ladder)} rungs, but no worth of the full fine-ranker")
        if wrong := complaint([(name, worth) for name, _, worth in self.rungs()]):
            raise ValueError(wrong)
        return self

    def rungs(self) -> list[tuple[str, str, Worth]]:
        """Name, model and worth of each rung, the full one first; none without a ladder."""
        if self.worth is None or not self.ladder:
            return []
        return [(FULL, self.model, self.worth), *((each.name, each.model, each.worth) for each in self.ladder)]


class Stages(Frozen):
    """The funnel, in order."""

    retrieval: RetrievalStage
    qscore: QscoreStage
    prerank: PrerankStage
    finerank: FinerankStage


class Catalogue(Frozen):
    """The ads that can be shown. Catalogue arrays have row 0 for padding, row 1 for the unknown ad, then the ads."""

    ads: int = Field(ge=0)
    has_bids: bool
    """False: the data has no bids and every bid is 1, so that eCPM order is pCTR order."""
    filters: tuple[str, ...] = ()
    """Ad fields a request may filter by; their raw values are kept in full."""
    targeting: tuple[str, ...] = ()
    """Context fields by which ads are targeted: an ad is only shown where the request's value is one of the ad's."""


class GoldenSpec(Frozen):
    """How closely the recorded outputs must be met on the machine that loads the bundle."""

    requests: int = Field(gt=0)
    query_tolerance: float = Field(gt=0)
    """Largest |difference| of a query vector's component, or of an offset."""
    logit_tolerance: float = Field(gt=0)
    """Largest |difference| of a fine-rank logit."""


class Made(Frozen):
    """Where a bundle comes from."""

    time: str
    commit: str
    seed: int
    data: str
    versions: dict[str, str]


class FileEntry(Frozen):
    """Size and checksum of one file."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


BundleId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""A bundle's name, which is its folder's."""


class Manifest(Frozen):
    """The whole of manifest.json."""

    format: Literal[2] = 2
    bundle_id: BundleId
    made: Made
    features: FeatureSchema
    catalogue: Catalogue
    stages: Stages
    golden: GoldenSpec
    quality: dict[str, dict[str, float]]
    """Model -> metric -> value, on the test split."""
    users: int = Field(default=0, ge=0)
    """Demo users whose features the bundle carries; 0 for none."""
    files: dict[str, FileEntry] = Field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle folder. ManifestError names the file and what is wrong with it."""
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:5])
        raise ManifestError(f"{path}: {wrong}") from error
    # Defaults are for who makes a manifest; what is read must be whole.
    if absent := _absent(json.loads(text), manifest.model_dump(mode="json")):
        raise ManifestError(f"{path}: keys are missing: {', '.join(absent)}")
    return manifest


def _absent(read: object, whole: object, key: str = "") -> list[str]:
    """Keys of `whole` that `read` lacks, at any depth."""
    if isinstance(read, dict) and isinstance(whole, dict):
        gone = [f"{key}{name}" for name in whole if name not in read]
        return gone + [k for name in whole if name in read for k in _absent(read[name], whole[name], f"{key}{name}.")]
    if isinstance(read, list) and isinstance(whole, list):
        return [
            k for i, (one, two) in enumerate(zip(read, whole, strict=True)) for k in _absent(one, two, f"{key}{i}.")
        ]
    return []
