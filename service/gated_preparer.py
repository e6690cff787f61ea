"""Makes bundles ready: fetched, judged in a helper process, then loaded beside the traffic."""

import logging
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from bundle.errors import BundleError, IntegrityError, PlaceError
from bundle.manifest import read_manifest
from bundle.store import BundleStore
from control.reports import Check
from service.background import Background
from service.errors import StartError, StoreError
from service.gate import REACHABLE, Job
from service.gate_helper import ask_helper, report_of
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.preparing import RefusedError
from service.recent import Recent
from service.settings import Settings, to_environment
from service.verdicts import Verdict, Verdicts, fingerprint, key_of

log = logging.getLogger("adrank.gate")


class GatedPreparer:
    """A Preparer. For one event loop."""

    def __init__(self, settings: Settings, recent: Recent, background: Background) -> None:
        """Nothing is written before the first bundle is prepared."""
        self._settings, self._recent, self._background = settings, recent, background
        self._first = _id_of(settings.bundle)
        self._place = settings.bundles or str(settings.bundle.absolute().parent)
        self._cache = settings.bundle_cache or Path(tempfile.gettempdir()) / f"adrank-{os.getuid()}"
        self._store = BundleStore(self._place, self._cache, settings.bundle_copies)

    async def prepare(self, bundle_id: str, live: LoadedBundle | None) -> LoadedBundle:
        """See Preparer. StoreError when the bundle store does not answer: that says nothing of the bundle. StartError
        when others can write to the cache folder."""
        folder = self._folder(bundle_id)
        verdict = await self._verdict(bundle_id, folder, live)
        if not verdict.passed:
            raise RefusedError(verdict.report)
        begun = time.perf_counter()
        try:
            loaded = await self._background.run(lambda: self._load(folder, verdict))
        except (BundleError, StartError) as error:
            checks = [*verdict.report.checks, Check(name="load", passed=False, found=1.0, limit=0.0, note=str(error))]
            raise RefusedError(report_of(bundle_id, checks)) from error
        log.info("bundle %s: loaded in %.2f s", bundle_id, time.perf_counter() - begun)
        return replace(loaded, checks=verdict.report.checks)

    def _load(self, folder: Path, verdict: Verdict) -> LoadedBundle:
        if not verdict.holds_of(folder):
            raise IntegrityError(f"{folder}: was changed after it was judged")
        return load_bundle(folder, self._settings, verify=False, pause=self._background.give_way)

    async def _verdict(self, bundle_id: str, folder: Path, live: LoadedBundle | None) -> Verdict:
        """This host's verdict: that of another process, or the helper's."""
        settings, base = self._settings, None if live is None else live.bundle.folder
        run = self._background.run  # a fingerprint asks the system for every file: 1 ms for 50
        compared = [] if live is None or base is None else [live.id, await run(partial(fingerprint, base))]
        key = key_of([bundle_id, str(folder), *compared, *_ordered(settings)])
        verdicts = Verdicts(self._cache, settings.gate_verdict_seconds)
        async with verdicts.turn(key):
            if (known := await run(partial(verdicts.find, key, folder))) is not None:
                return known
            begun = time.perf_counter()
            with tempfile.TemporaryDirectory(prefix="adrank-gate-") as work:  # of this user alone
                requests = Path(work) / "requests"
                seen = await run(lambda: self._recent.write(requests))
                job = Job(
                    bundle_id=bundle_id,
                    place=self._place,
                    cache=str(self._cache),
                    folder=None if folder == self._store.path_of(bundle_id) else str(folder),
                    live_id=None if live is None else live.id,
                    live=None if base is None else str(base),
                    requests=str(requests),
                )
                verdict = await ask_helper(job, settings)
            seconds = time.perf_counter() - begun
            if verdict.passed:
                count = len(verdict.report.checks)
                log.info("bundle %s: passed %d checks in %.1f s, %d requests", bundle_id, count, seconds, seen)
            else:
                log.warning("bundle %s: refused after %.1f s: %s", bundle_id, seconds, verdict.report.error)
            if verdict.report.checks[-1].name == REACHABLE:
                raise StoreError(verdict.report.checks[-1].note)
            verdicts.keep(key, verdict)
            return verdict

    def _folder(self, bundle_id: str) -> Path:
        """Where the bundle is or will be. RefusedError for what is no bundle's id."""
        if bundle_id == self._first:
            return self._settings.bundle
        try:
            return self._store.path_of(bundle_id)
        except PlaceError as error:
            check = Check(name="store", passed=False, found=0.0, limit=1.0, note=str(error))
            raise RefusedError(report_of(bundle_id, [check])) from error


def _id_of(folder: Path) -> str | None:
    """Of the bundle that the service was started with, which may lie anywhere, under any name. None when it is gone."""
    try:
        return read_manifest(folder).bundle_id
    except BundleError:
        return None


def _ordered(settings: Settings) -> list[str]:
    return [f"{name}={value}" for name, value in sorted(to_environment(settings).items())]
