"""A logged request once more: from the inputs it was answered from, through the stages that ran, by the same rung.

The log (service/served_log.py, written to files by `adrank outcomes`) has all inputs but the bundle. Where an input is
missing or is not what it was, that is the answer: scores of other inputs would prove nothing.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.errors import BundleError, RecordError
from bundle.record import unpack
from control.state import Desired, Overrides
from service.ad_flags import canonical, new_view
from service.asks import ask_of
from service.budget import Budget, Estimates
from service.cascade import rank
from service.eligibility import Passed
from service.errors import ServiceError, StartError
from service.flag_stores import FLAGS
from service.ladder import key_of
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.plan import Plan
from service.problem import parse
from service.ranker import ads_of
from service.schemas import RankedAd, RankRequest
from service.scorer import runtime
from service.served_log import digest, manifest_digest
from service.settings import Settings
from service.timing import RequestTiming
from service.user_cache import StoredUser
from service.user_features import UserFeatures

SEGMENTS = "raw/served/*/*.jsonl.gz"


class ReplayError(ServiceError):
    """A request cannot be replayed. The message names the input and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What came out."""

    ads: list[RankedAd]
    logged: list[RankedAd]
    scored_by: str
    rung: str | None
    differing: list[str]
    """Of machine and libraries: what is not as it was. Scores may then differ in their last bits."""

    @property
    def same(self) -> bool:
        """The same ads in the same order, with the same scores to the bit."""
        return self.ads == self.logged


class Pinned(Budget):
    """Allows what ran, whatever it takes."""

    def __init__(self, skipped: Sequence[str], rung: str | None) -> None:
        super().__init__(60_000)
        self._skipped = skipped
        self._key = None if rung is None else key_of(rung)

    def allows(self, estimates: Estimates, stage: str, size: int) -> bool:  # noqa: ARG002
        """Whether the stage ran."""
        return stage not in self._skipped

    def best(self, estimates: Estimates, stages: Sequence[str], size: int) -> int | None:  # noqa: ARG002
        """The rung that gave the scores; None: none did."""
        return stages.index(self._key) if self._key in stages else None


def find(log: Path, request_id: str) -> dict[str, Any]:
    """The logged request. ReplayError when it is in no file."""
    quoted = json.dumps(request_id).encode()
    paths = sorted(log.glob(SEGMENTS), reverse=True)  # the newest first
    for path in paths:
        try:
            for line in _lines(path):
                if quoted not in line or "head" not in (found := json.loads(line)):
                    continue  # another's, or what the shadow made of it
                if found["head"]["request_id"] == request_id:
                    return dict(found)
        except FileNotFoundError:  # the collector has just merged it with others
            return find(log, request_id)
    raise ReplayError(f"request {request_id!r} is in none of the {len(paths)} files {log / SEGMENTS}")


def replay(line: dict[str, Any], log: Path, bundles: Path) -> Replayed:
    """Rank the logged request again. ReplayError names the input that is missing or differs."""
    head, answer = line["head"], line["answer"]
    if answer is None:
        raise ReplayError(f"the request failed with status {head['status']}: there are no scores")
    request = parse(RankRequest, _unchanged("request", line["asked"], head["sums"]["asked"]))
    found = _user(line["record"], head["sums"]["record"])
    live = _bundle(head, bundles)
    flags = _flags(head["flags"], log, live)
    skipped = [stage["name"] for stage in answer["stages"] if stage["degraded"] is not None]
    timing = RequestTiming()
    ask, _ = ask_of(live, request, found, request.k or len(answer["ads"]), flags, timing)
    if answer["rung"] is not None and answer["rung"] not in (names := [rung.name for rung in live.ladder.rungs]):
        raise ReplayError(f"rung: {answer['rung']!r} gave the scores, the bundle has {', '.join(names)}")
    ranked = rank(live, ask, Pinned(skipped, answer["rung"]), timing)
    now = {"provider": head["runtime"]["provider"], "threads": head["runtime"]["threads"]} | runtime()
    were = head["runtime"].items()
    differing = [f"{name}: {was!r} then, {now.get(name)!r} now" for name, was in were if was != now.get(name)]
    return Replayed(ads_of(live, ranked), answer["ads"], ranked.scored_by, timing.rung, differing)


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as file:
        yield from file


def _unchanged(what: str, text: str, expected: str) -> bytes:
    value = text.encode()
    if (found := digest(value)) != expected:
        raise ReplayError(f"{what}: the log holds one with hash {found}, the answer was made from {expected}")
    return value


def _user(record: str | None, expected: str | None) -> UserFeatures:
    if record is None or expected is None:
        if (record is None) != (expected is None):
            raise ReplayError(f"user record: the log holds {record!r:.40}, the answer was made from {expected}")
        return UserFeatures()
    packed = _unchanged("user record", record, expected)
    try:
        unpack(packed)
    except RecordError as error:
        raise ReplayError(f"user record: {error}") from error
    return UserFeatures(True, stored=StoredUser(packed))


def _bundle(head: dict[str, Any], bundles: Path) -> LoadedBundle:
    """The bundle as it was served: with the sizes and overrides of that request."""
    name, folder = head["bundle_id"], bundles / head["bundle_id"]
    if not folder.is_dir():
        raise ReplayError(f"bundle: {name!r} is not in {bundles}")
    retrieval, qscore, prerank, _ = head["sizes"]
    try:
        if (found := manifest_digest(folder)) != head["manifest"]:
            raise ReplayError(
                f"bundle: the manifest of {folder} has hash {found}, that of the answer {head['manifest']}"
            )
        settings = Settings(
            bundle=folder,
            provider=head["runtime"]["provider"],
            threads=head["runtime"]["threads"],
            retrieval_keep=retrieval,
            qscore_keep=qscore,
            prerank_keep=prerank,
            ladder="auto",
            history_limit=10_000,
        )
        loaded = load_bundle(folder, settings)
    except (BundleError, StartError, OSError) as error:
        raise ReplayError(f"bundle: {error}") from error
    control = Overrides.model_validate(head["overrides"] | {"bundle": name})
    return Plan(Desired(version=1, control=control), {name: loaded}).control


def _flags(name: str | None, log: Path, live: LoadedBundle) -> Passed:
    if name is None:
        return ()
    path = log / "flags" / f"{name}.json"
    if not path.is_file():
        raise ReplayError(f"flags of ads: {path} is not there")
    body = path.read_bytes()
    if (found := digest(body)) != name:
        raise ReplayError(f"flags of ads: {path} has hash {found}")
    flags: dict[str, int] = {}
    for flag, ads in json.loads(body).items():
        for ad in ads:
            ad_id = canonical(live.bundle.ads.index, ad)
            flags[ad_id] = flags.get(ad_id, 0) | FLAGS[flag]
    return new_view(live.bundle, flags).passed
