"""What a process does to have the bundles ready that the state names: one after the other, beside the traffic."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from bundle.folder import Bundle
from control.reports import BundleReport
from service.ad_flags import AdFlags
from service.metrics import Metrics
from service.preparing import Preparer, RefusedError
from service.registry import Registry
from service.shelf import Shelf
from service.state_stores import Known
from service.tasks import ended

log = logging.getLogger("adrank.state")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Until a bundle that could not be prepared for a reason of the moment is tried again; doubled each time."""
REFUSALS = 8
"""The last refused bundles are listed."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A bundle that was refused for a version; a later version that needs it has it tried again."""

    report: BundleReport
    version: int


@dataclass(frozen=True, slots=True)
class Trouble:
    """A bundle that could not be prepared, which says nothing of the bundle."""

    error: str
    pause_s: float
    until: float
    """By the monotonic clock."""


class Preparation:
    """Puts on the shelf what the agreed and the wanted version need. For one event loop."""

    def __init__(
        self,
        preparer: Preparer,
        registry: Registry,
        shelf: Shelf,
        flags: AdFlags,
        metrics: Metrics,
        tell: Callable[[], None],
    ) -> None:
        """`tell` is called whenever a bundle is ready, or will not be."""
        self._preparer, self._registry, self._shelf, self._flags = preparer, registry, shelf, flags
        self._metrics, self._tell = metrics, tell
        self._known = Known(None, None)
        self._refusals: dict[str, Refusal] = {}
        self._troubles: dict[str, Trouble] = {}
        self._current: str | None = None
        self._arriving: Bundle | None = None
        self._work: asyncio.Task[None] | None = None

    def look_after(self, known: Known) -> None:
        """From now on, this is what is needed."""
        self._known = known
        if (self._work is None or self._work.done()) and self._missing(known) is not None:
            self._work = asyncio.create_task(self._prepare_missing())

    def is_done(self, known: Known) -> bool:
        """Whether all that `known` needs is on the shelf, was refused, or cannot be had now."""
        return self._current is None and self._missing(known) is None

    @property
    def arriving(self) -> list[Bundle]:
        """The bundle that is about to be put on the shelf."""
        return [] if self._arriving is None else [self._arriving]

    @property
    def reports(self) -> list[BundleReport]:
        """What became of each bundle."""
        found = {name: each.report for name, each in self._refusals.items()}
        found |= {
            name: BundleReport(bundle_id=name, status="preparing", error=each.error)
            for name, each in self._troubles.items()
        }
        if self._current is not None:
            found[self._current] = BundleReport(bundle_id=self._current, status="preparing")
        found |= {
            name: BundleReport(bundle_id=name, status="ready", checks=each.checks)
            for name, each in self._shelf.held.items()
        }
        return list(found.values())

    def forget_troubles(self, needed: Collection[str]) -> None:
        """Of bundles that are not needed any more."""
        self._troubles = {name: each for name, each in self._troubles.items() if name in needed}

    async def stop(self) -> None:
        """Prepare nothing more."""
        await ended(self._work)

    def _missing(self, known: Known) -> str | None:
        """The bundle to prepare next: of the agreed version first, of each version the control's first."""
        held, now = self._shelf.held, time.monotonic()
        version = 0 if known.wanted is None else known.wanted.version
        for desired in (known.agreed, known.wanted):
            if desired is None:
                continue
            for name in sorted(desired.bundles, key=lambda each: (each != desired.control.bundle, each)):
                refusal, trouble = self._refusals.get(name), self._troubles.get(name)
                refused = refusal is not None and refusal.version == version
                if name not in held and not refused and (trouble is None or trouble.until <= now):
                    return name
        return None

    async def _prepare_missing(self) -> None:
        while (name := self._missing(self._known)) is not None:
            version = 0 if self._known.wanted is None else self._known.wanted.version
            self._current = name
            begun = time.monotonic()
            try:
                await self._put_on_shelf(name)
            except RefusedError as error:
                self._refuse(error.report, version)
            except Exception as error:
                log.exception("bundle %s cannot be prepared now", name)
                known = self._troubles.get(name)
                pause = FIRST_PAUSE_S if known is None else min(2 * known.pause_s, LONGEST_PAUSE_S)
                said = f"{type(error).__name__}: {error}"[:300]
                self._troubles[name] = Trouble(said, pause, time.monotonic() + pause)
            else:
                self._refusals.pop(name, None)
                self._troubles.pop(name, None)
            finally:
                self._current = None
                self._tell()
            self._metrics.prepared(time.monotonic() - begun)

    async def _put_on_shelf(self, name: str) -> None:
        loaded = await self._preparer.prepare(name, self._registry.live if self._registry.is_ready else None)
        self._arriving = loaded.bundle
        try:
            await asyncio.to_thread(self._flags.of, loaded.bundle)  # 10^6 flags take a second: not in a request
            self._shelf.add(loaded)
        finally:
            self._arriving = None
        log.info("bundle %s is ready", name)

    def _refuse(self, report: BundleReport, version: int) -> None:
        log.error("bundle %s is refused: %s", report.bundle_id, report.error)
        self._refusals.pop(report.bundle_id, None)
        self._refusals[report.bundle_id] = Refusal(report, version)
        self._troubles.pop(report.bundle_id, None)
        while len(self._refusals) > REFUSALS:
            del self._refusals[next(iter(self._refusals))]
        self._metrics.bundle_refused()
