"""The gate: what is asked of a bundle before it may serve, in order; the first check that fails ends it.

    store        it is where it should be, and its disk space too
    checksum     exactly the files that the manifest announces, each with its size and sha256
    signature    by one of the keys that are set
    format       of this version, whole, and of the id that was asked for
    contract     arrays and graphs are as the manifest states, and read what the service has
    fields       requests may name what they may name now
    golden       recorded outputs, on this processor
    finite       no NaN and no infinity in any stage
    requests     recent requests are not refused
    overlap@10   answers have ads in common with the live bundle's
    shift, psi   scores are near the live bundle's
    latency      the funnel takes about as long
    memory       loading it leaves room

Everything runs in a helper process (gate_process.py), so that whatever a bundle does happens there.
"""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from bundle.errors import BundleError, GoldenError, PlaceError, UnreachableError
from bundle.folder import damage
from bundle.golden import load_golden
from bundle.manifest import MANIFEST, FileEntry, Manifest, read_manifest
from bundle.signature import check_signature
from bundle.store import BundleStore
from control.reports import Check
from control.state import Frozen
from service.cascade import Ask
from service.errors import StartError
from service.loaded import LoadedBundle
from service.loading import assemble, prove
from service.memory_use import MIB, Held, available, held
from service.recent import Seen, read_recent
from service.replay import Found, answer, asked, refusal, replay
from service.settings import Settings

FILES = TypeAdapter(dict[str, FileEntry])
FORMAT = Manifest.model_fields["format"].default

REACHABLE = "reachable"
"""The check of a bundle store that does not answer: it says nothing of the bundle."""
SCANNED = 50
"""Recent requests in whose scores NaN and infinity are looked for, beside the golden rows."""


class Job(Frozen):
    """What a helper process is asked."""

    bundle_id: str
    place: str
    """Of the bundle store."""
    cache: str
    folder: str | None = None
    """Where the bundle is, if it is not in the store."""
    live_id: str | None = None
    live: str | None = None
    """Folder of the bundle that the new one is compared with; None: there is none."""
    requests: str | None = None
    """File of recent requests."""


def folder_of(job: Job, settings: Settings) -> Path:
    """Where the bundle is, or will be once it is fetched."""
    if job.folder is not None:
        return Path(job.folder)
    return BundleStore(job.place, Path(job.cache), settings.bundle_copies).path_of(job.bundle_id)


def checks(job: Job, settings: Settings) -> Iterator[Check]:
    """All checks in order. To be ended by the caller at the first one that failed: what follows relies on it."""
    store = BundleStore(job.place, Path(job.cache), settings.bundle_copies)
    try:
        kept = [job.live_id] if job.live_id else []
        folder = store.fetch(job.bundle_id, kept) if job.folder is None else Path(job.folder)
    except UnreachableError as error:
        yield Check(name=REACHABLE, passed=False, found=0.0, limit=1.0, note=str(error))
        return
    except PlaceError as error:
        yield Check(name="store", passed=False, found=0.0, limit=1.0, note=str(error))
        return
    yield Check(name="store", passed=True, found=1.0, limit=1.0, note=str(folder))

    damaged = _checksum(folder)
    if not damaged.passed:
        store.forget(job.bundle_id)  # the copy may be what is wrong: the next attempt makes another
    yield damaged
    yield _signature(folder, settings.public_keys)
    yield _format(folder, job.bundle_id)

    before, free = held(), available()
    try:
        new = assemble(folder, settings, checksums=False)
    except (BundleError, StartError) as error:
        yield Check(name="contract", passed=False, found=1.0, limit=0.0, note=str(error))
        return
    yield Check(name="contract", passed=True, found=0.0, limit=0.0)
    live_folder = _live_folder(job, store)
    if live_folder is not None:
        yield _fields(new.bundle.manifest, read_manifest(live_folder), settings.gate_lost_fields)

    new, proved = _golden(new, settings)
    yield proved
    after = held()

    live = None
    if live_folder is not None:
        live = prove(assemble(live_folder, settings, checksums=False, contents=False), settings)
    seen = read_recent(Path(job.requests)) if job.requests else []
    yield _finite(new, live, seen, settings)
    yield from _replayed(new, live, seen, job, settings)
    yield _memory(before, after, free, settings)


def _checksum(folder: Path) -> Check:
    try:
        files = FILES.validate_python(json.loads((folder / MANIFEST).read_bytes())["files"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = "the list of files is not one" if isinstance(error, ValidationError) else error
        return Check(name="checksum", passed=False, found=1.0, limit=0.0, note=f"{folder / MANIFEST}: {why}")
    wrong = list(damage(folder, files))
    note = f"{len(files)} files" if not wrong else wrong[0]
    return Check(name="checksum", passed=not wrong, found=float(len(wrong)), limit=0.0, note=note)


def _signature(folder: Path, keys: Sequence[str]) -> Check:
    if not keys:
        return Check(name="signature", passed=True, found=0.0, limit=0.0, note="not asked for: no keys are set")
    try:
        return Check(name="signature", passed=True, found=float(check_signature(folder, keys)), limit=1.0)
    except BundleError as error:
        return Check(name="signature", passed=False, found=0.0, limit=1.0, note=str(error))


def _format(folder: Path, bundle_id: str) -> Check:
    raw = json.loads((folder / MANIFEST).read_bytes())
    stated = raw.get("format")
    found = float(stated) if isinstance(stated, int) else str(stated)
    try:
        manifest = read_manifest(folder)
    except BundleError as error:
        return Check(name="format", passed=False, found=found, limit=float(FORMAT), note=str(error))
    note = "" if manifest.bundle_id == bundle_id else f"{folder} holds the bundle {manifest.bundle_id!r}"
    return Check(name="format", passed=not note, found=found, limit=float(FORMAT), note=note)


def _live_folder(job: Job, store: BundleStore) -> Path | None:
    """Where the live bundle is; its copy may be gone from the cache by now. None without one."""
    if job.live is None or job.live_id is None:
        return None
    if (Path(job.live) / MANIFEST).is_file():
        return Path(job.live)
    try:
        return store.fetch(job.live_id)
    except PlaceError:
        return None


def _fields(new: Manifest, live: Manifest, limit: int) -> Check:
    """What callers may send now and could not any more: the service refuses fields that it does not know."""
    lost = sorted(_names(live) - _names(new))
    note = f"requests may not name any more: {', '.join(lost)}" if lost else ""
    return Check(name="fields", passed=len(lost) <= limit, found=float(len(lost)), limit=float(limit), note=note)


def _names(manifest: Manifest) -> set[str]:
    features, catalogue = manifest.features, manifest.catalogue
    return {
        f"{features.key_type} ad ids",
        *(f"context.{field.name}" for field in features.context.fields),
        *(f"context.{name}" for name in catalogue.targeting),
        *(f"filters.{name}" for name in catalogue.filters),
        *(f"user.profile.{field.name}" for field in features.user.fields),
        *(f"user.history.{history.name}" for history in features.histories),
        *(f"event {kind}" for history in features.histories for kind in history.events),
    }


def _golden(new: LoadedBundle, settings: Settings) -> tuple[LoadedBundle, Check]:
    """The bundle with its proof, if there is one."""
    allowed = new.bundle.manifest.golden
    try:
        new = prove(new, settings)
    except GoldenError as error:
        found = error.found if math.isfinite(error.found) else str(error.found)
        return new, Check(name="golden", passed=False, found=found, limit=error.allowed, note=str(error))
    except BundleError as error:
        return new, Check(name="golden", passed=False, found=0.0, limit=float(allowed.requests), note=str(error))
    proof = new.proof
    note = f"{proof.requests} rows; query off by {proof.query_deviation:.3g}, allowed {allowed.query_tolerance:.3g}"
    return new, Check(name="golden", passed=True, found=proof.logit_deviation, limit=allowed.logit_tolerance, note=note)


def _finite(new: LoadedBundle, live: LoadedBundle | None, seen: Sequence[Seen], settings: Settings) -> Check:
    share, scored = _non_finite(new, seen, settings)
    usual, _ = (0.0, 0) if live is None else _non_finite(live, seen, settings)
    limit = usual + settings.gate_non_finite_share
    note = f"of {scored} scores; {usual:.3g} of the live bundle's"
    return Check(name="finite", passed=share <= limit, found=share, limit=limit, note=note)


def _non_finite(loaded: LoadedBundle, seen: Sequence[Seen], settings: Settings) -> tuple[float, int]:
    """Share of scores that are no finite numbers, and how many scores there are: of golden rows and the first of the
    recent requests, each through the whole funnel."""
    asks = [Ask(row.common, 10) for row in load_golden(loaded.bundle.folder)]
    asks += [asked(loaded, each) for each in seen[:SCANNED] if refusal(each, loaded, settings) is None]
    bad = scored = 0
    for ask in asks:
        _, timing = answer(loaded, ask)
        bad += sum(timing.non_finite.values())
        scored += sum(stage.seen for stage in timing.stages if stage.name in ("prerank", "finerank"))
    return bad / max(1, scored), scored


def _replayed(
    new: LoadedBundle, live: LoadedBundle | None, seen: Sequence[Seen], job: Job, settings: Settings
) -> Iterator[Check]:
    least, limits = settings.gate_min_requests, settings
    found = Found() if live is None else replay(new, live, seen, settings)
    refused = found.refused / max(1, found.requests)
    why = _unreplayed(found, live, job)
    if found.requests < least:
        note = f"gate_min_requests asks for more{f': {why}' if why else ''}"
        yield Check(name="requests", passed=False, found=float(found.requests), limit=float(least), note=note)
        return
    note = f"requests {found.requests}" + (f", {why}" if why else "") + (f"; {found.refusal}" if found.refusal else "")
    passed = refused <= limits.gate_refused_share
    yield Check(name="requests", passed=passed, found=refused, limit=limits.gate_refused_share, note=note)
    if not found.new_ms:
        for name, limit in (
            ("overlap@10", limits.gate_overlap),
            ("shift", limits.gate_score_shift),
            ("psi", limits.gate_psi),
            ("latency", limits.gate_latency_ratio),
        ):
            yield Check(name=name, passed=True, limit=limit, note=f"skipped: requests 0, {why}")
        return
    answers = len(found.overlaps)
    passed = found.overlap >= limits.gate_overlap
    yield Check(
        name="overlap@10", passed=passed, found=found.overlap, limit=limits.gate_overlap, note=f"of {answers} answers"
    )
    passed = found.shift <= limits.gate_score_shift
    note = f"of {len(found.found)} ads that both know"
    yield Check(name="shift", passed=passed, found=found.shift, limit=limits.gate_score_shift, note=note)
    yield Check(name="psi", passed=found.psi <= limits.gate_psi, found=found.psi, limit=limits.gate_psi)
    ours, theirs = found.latency
    ratio = ours / max(theirs, 1e-6)
    note = f"median {ours:.3f} ms against {theirs:.3f} ms of the live bundle, {len(found.new_ms)} runs of each"
    passed = ratio <= limits.gate_latency_ratio
    yield Check(name="latency", passed=passed, found=ratio, limit=limits.gate_latency_ratio, note=note)


def _unreplayed(found: Found, live: LoadedBundle | None, job: Job) -> str:
    """Why there is nothing to compare; empty where there is."""
    if live is None:
        return "nothing is live" if job.live is None else f"the live bundle {job.live_id!r} is not on disk any more"
    return "" if found.requests else "none was seen yet"


def _memory(before: Held | None, after: Held | None, free: int | None, settings: Settings) -> Check:
    if before is None or after is None or free is None:
        return Check(name="memory", passed=True, note="skipped: the system does not tell")
    own, mapped = max(0, after.own - before.own), max(0, after.mapped - before.mapped)
    needed, limit = own * settings.workers + mapped, free * settings.gate_memory_share
    note = f"MiB: {own / MIB:.1f} in each of {settings.workers} processes, {mapped / MIB:.1f} of files that they share"
    return Check(name="memory", passed=needed <= limit, found=needed / MIB, limit=limit / MIB, note=note)
