"""Several followers of one state, as if each was a process, and the changes that somebody makes to that state."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bundle.errors import BundleError
from control.reports import BundleReport, Check
from control.state import Change, Desired, Overrides
from service.ad_flags import AdFlags
from service.background import Background
from service.errors import StartError
from service.flag_stores import EmbeddedFlags
from service.follower import Follower, Pace
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.metrics import Metrics
from service.preparing import RefusedError
from service.registry import Registry
from service.settings import Settings
from service.shelf import Shelf
from service.state_stores import StateStore
from service.traffic import Traffic


class FolderPreparer:
    """A Preparer without the gate's process: it loads and proves in the background thread."""

    def __init__(self, root: Path, settings: Settings, background: Background) -> None:
        self._root, self._settings, self._background = root, settings, background

    async def prepare(self, bundle_id: str, live: LoadedBundle | None) -> LoadedBundle:
        del live
        try:
            return await self._background.run(lambda: load_bundle(self._root / bundle_id, self._settings))
        except (BundleError, StartError) as error:
            check = Check(name="load", passed=False, note=str(error))
            report = BundleReport(bundle_id=bundle_id, status="refused", checks=(check,), error=str(error))
            raise RefusedError(report) from error


class GatedPreparer(FolderPreparer):
    """Begins to load a bundle when its gate is open, and fails as often as it was told to."""

    def __init__(self, root: Path, settings: Settings, background: Background) -> None:
        super().__init__(root, settings, background)
        self.gates: dict[str, asyncio.Event] = {}
        self.failures: dict[str, int] = {}
        self.asked: list[str] = []

    async def prepare(self, bundle_id: str, live: LoadedBundle | None) -> LoadedBundle:
        self.asked.append(bundle_id)
        if bundle_id in self.gates:
            await self.gates[bundle_id].wait()
        if self.failures.get(bundle_id, 0):
            self.failures[bundle_id] -= 1
            raise OSError("the network is down")
        return await super().prepare(bundle_id, live)


class Member:
    """What a process has of it."""

    def __init__(self, store: StateStore, settings: Settings, keep: int = 0, ttl_s: float = 5.0) -> None:
        self.settings = settings
        self.registry = Registry()
        self.shelf = Shelf(keep)
        self.background = Background(Traffic())
        self.preparer = GatedPreparer(settings.bundle.parent, settings, self.background)
        self.metrics = Metrics()
        self.flags = AdFlags(EmbeddedFlags(10), self.metrics, 1.0, 10.0)
        self.follower = Follower(
            store,
            self.preparer,
            self.registry,
            self.shelf,
            self.flags,
            self.background,
            self.metrics,
            Pace(0.02, ttl_s),
        )
        self.loads = 0

    async def load(self) -> LoadedBundle:
        self.loads += 1
        return await asyncio.to_thread(load_bundle, self.settings.bundle, self.settings)

    async def start(self) -> None:
        await self.follower.start(self.load)

    async def die(self) -> None:
        """End without a word, as a process that is killed."""
        assert self.follower._task is not None
        self.follower._task.cancel()
        await asyncio.gather(self.follower._task, return_exceptions=True)
        self.background.close()

    async def stop(self) -> None:
        await self.follower.stop()
        self.background.close()

    @property
    def version(self) -> int:
        return self.registry.plan.version

    def status(self, bundle_id: str) -> str | None:
        """What it reports of a bundle."""
        return next((each.status for each in self.follower.reports if each.bundle_id == bundle_id), None)


@asynccontextmanager
async def fleet(*members: Member) -> AsyncIterator[None]:
    """All of them started, one after the other, and stopped at the end."""
    started: list[Member] = []
    try:
        for member in members:
            await member.start()
            started.append(member)
        yield
    finally:
        for member in started:
            await member.stop()


async def want(store: StateStore, bundle_id: str, **more: Any) -> int:
    """Make a version with this control the wanted one, after whatever there is."""
    before = (await store.look()).wanted
    version = 0 if before is None else before.version
    state = Desired(version=version + 1, control=Overrides(bundle=bundle_id), **more)
    await store.change(state, change(version, version + 1))
    return version + 1


def change(before: int, after: int, who: str = "anna") -> Change:
    return Change(at=time.time(), who=who, why="to see", action="serve", before=before, after=after)
